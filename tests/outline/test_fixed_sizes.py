"""Fixed sizes are read from arrays that have them, and fixed indices are made where the author keeps them."""

from __future__ import annotations

import torch
from torch import nn

from tests.program import check


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).reshape(B, N, C)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 12, 4, stride=4)
        self.position = nn.Embedding(9, 12)
        ids = torch.arange(9).expand((1, -1))
        self.register_buffer("ids", ids, persistent=False)
        self.attention = Attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x).flatten(2).mT
        return self.attention(x + self.position(self.ids))


def test_fixed_sizes() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    program = check(Patches(), (x,), (torch.randn(3, 3, 12, 12),))
    attention = program.source.partition("class Attention")[2].partition("\nclass ")[0]
    assert ".shape\n" in attention and "reshape(B, T, 3, 2, 6)" in attention
    assert "9" not in attention and "reshape(B, T, 12)" in attention
    assert "self.position = nn.Embedding(9, 12)" in program.source
    assert "self.position(mx.arange(9))" in program.source
