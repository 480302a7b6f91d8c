"""Floating-point operations against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mlx import analyze


class Attention(nn.Module):
    def forward(self, x):
        mask = torch.ones(6, 6, dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(x, x, x, mask)


class Product(nn.Module):
    def forward(self, x):
        return torch.einsum("bij,bjk->bik", x, x).relu().softmax(-1)


class Elementwise(nn.Module):
    def forward(self, x):
        return x * x + x.exp()


@pytest.mark.parametrize(
    ("model", "shape", "flops"),
    [
        (nn.Linear(3, 5), (2, 7, 3), 2 * 14 * 3 * 5),
        (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 10), 2 * 2 * 8 * 6 * 2 * 3),
        (nn.ConvTranspose2d(2, 3, 2), (2, 2, 4, 4), 2 * 2 * 16 * 2 * 3 * 4),
        (Attention(), (2, 3, 6, 4), 2 * 2 * (2 * 3) * 6 * 6 * 4),
        (Product(), (2, 4, 4), 2 * 2 * 4 * 4 * 4),
        (nn.LSTM(3, 5), (4, 2, 3), 2 * 4 * 2 * 20 * (3 + 5)),
        (Elementwise(), (2, 3), 0),
        (nn.Embedding(7, 3), None, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_formulas(model: nn.Module, shape: tuple[int, ...] | None, flops: int) -> None:
    x = torch.rand(shape) if shape else torch.zeros(2, 3, dtype=torch.int64)
    found = analyze(model, (x,))
    assert found.by_flops.total == flops
    assert sum(row.flops for row in found.ops) == flops
