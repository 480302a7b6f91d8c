"""Positions stay in their tables: MLX would read past the end."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


class Rows(nn.Module):
    """Rows that follow each other, and one for all."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(16, 4))
        self.segments = nn.Parameter(torch.randn(2, 4))
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        where = torch.arange(self.first, self.first + x.shape[1])[None]
        y = F.embedding(where.expand(x.shape[0], -1), self.positions)
        return x + y + self.segments[torch.zeros_like(x[..., 0], dtype=torch.int64)]


@pytest.mark.parametrize(
    ("first", "rows"), [(0, "[: {}]"), (2, "[2 : 2 + {}]"), (3, "[3 : 3 + {}]")]
)
def test_rows_that_follow_each_other(first: int, rows: str) -> None:
    model = Rows(first)
    program = torch2mlx.compile(model, (torch.randn(2, 5, 4),))
    assert f"self.positions{rows.format('x.shape[1]')}" in program.source
    assert "self.segments[:1]" in program.source
    assert "arange" not in program.source
    module = program.load()
    x = torch.randn(3, 7, 4)
    with torch.no_grad():
        assert np.allclose(module(mx.array(x.numpy())), model(x), atol=1e-6)
    most = 16 - first
    assert module(mx.zeros((1, most, 4))).shape == (1, most, 4)
    with pytest.raises(ValueError, match=rf"^x must have T <= {most}"):
        module(mx.zeros((1, most + 1, 4)))


class Text(nn.Module):
    """Tokens and their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 64)
        self.positions = nn.Embedding(16, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tokens(x) + self.positions(torch.arange(x.shape[1]))


def test_layers_can_be_quantized() -> None:
    """`mlx.nn.quantize` packs the rows of embeddings, of which a slice would be something else."""
    model = Text()
    program = torch2mlx.compile(model, (torch.randint(0, 20, (2, 5)),))
    assert "self.positions(mx.arange(T))" in program.source
    module = program.load()
    mlx.nn.quantize(module, group_size=32, bits=8)
    assert isinstance(module.positions, mlx.nn.QuantizedEmbedding)
    x = torch.randint(0, 20, (3, 7))
    with torch.no_grad():
        expected = model(x)
    assert np.allclose(np.array(module(mx.array(x.numpy()))), expected, atol=0.05)


class Whole(Indexed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[torch.arange(16)]


def test_all_rows() -> None:
    program = torch2mlx.compile(Whole(), (torch.randn(2, 16, 4),))
    assert "x + self.table" in program.source
    assert "[" not in program.source.partition("x + self.table")[2].partition("\n")[0]


class OwnClass(nn.Embedding):
    """Positions from how long its input is, as BART has them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.arange(input.shape[1]) + 2)


class Bart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = OwnClass(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.positions(x)


def test_a_class_of_its_own_stays() -> None:
    program = torch2mlx.compile(Bart(), (torch.randn(2, 5, 4),))
    assert "class OwnClass(nn.Module):" in program.source
    assert "return self.weight[2 : n + 2]" in program.source


class Shuffled(Indexed):
    """Positions that do not follow each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[15 - torch.arange(x.shape[1])]


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Embedded(every=3), torch.randn(2, 5, 4)),
        (Shuffled(), torch.randn(2, 5, 4)),
    ],
)
def test_lookups_that_stay(model: nn.Module, x: torch.Tensor) -> None:
    program = torch2mlx.compile(model, (x,))
    assert "arange" in program.source
    with torch.no_grad():
        have = np.array(program.load()(mx.array(x.numpy())))
        assert np.allclose(have, model(x), atol=1e-6)
