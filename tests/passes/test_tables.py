"""Positions stay in their tables: MLX would read past the end."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx


class Embedded(nn.Module):
    """Positions `first`, `first + every`, ... of a table with 16 rows."""

    def __init__(self, first: int = 0, every: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)
        self.first, self.every = first, every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table(torch.arange(x.shape[1]) * self.every + self.first)


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[torch.arange(x.shape[1])]


class Selected(Indexed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table.t().index_select(1, torch.arange(x.shape[1])).t()


class Concatenated(Indexed):
    """As many positions as both inputs have together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[1] + x.shape[2]
        return x.sum() + self.table[torch.arange(count)]


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (Embedded(), 16),
        (Embedded(first=2), 14),
        (Embedded(every=3), 6),
        (Indexed(), 16),
        (Selected(), 16),
    ],
)
def test_one_size(model: nn.Module, most: int) -> None:
    program = torch2mlx.compile(model, (torch.randn(2, 5, 4),), io_layout="torch")
    module = program.load()
    x = torch.randn(3, most, 4)
    with torch.no_grad():
        expected = model(x)
    assert np.allclose(np.array(module(mx.array(x.numpy()))), expected, atol=1e-6)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.zeros(2, most + 1, 4))
    with pytest.raises(ValueError, match=rf"^x must have T <= {most}"):
        module(mx.zeros((2, most + 1, 4)))
    note = program.report.notes[-1]
    assert note.startswith(f"`x.shape[1]` is at most {most}: the rows of a table, ")
    assert __file__ in note


def test_two_sizes() -> None:
    program = torch2mlx.compile(Concatenated(), (torch.randn(2, 5, 4),))
    module = program.load()
    assert module(mx.zeros((2, 9, 7))).shape == (16, 4)
    with pytest.raises(ValueError, match="with "):
        module(mx.zeros((2, 9, 8)))


def test_a_size_that_is_fixed_needs_no_note() -> None:
    program = torch2mlx.compile(Indexed(), (torch.randn(2, 5, 4),), dynamic=False)
    assert program.report.notes == []
