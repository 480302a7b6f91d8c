"""What the author asks of a size of 1, for which torch.export leaves no guard."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.capture.modules import Branch, Forward


def one_row(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 1 else x + 1


def several_rows(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.size(0) > 1 else x * 2


def other_type(x: torch.Tensor) -> torch.Tensor:
    return x if x.shape[0] != 1 else x.int()


def fails(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] < 2:
        raise ValueError("at least two rows")
    return x + 1


def one_element(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.numel() == 1 else x + 1


def one_column(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.size(1) == 1 else x + 1


def the_same(x: torch.Tensor) -> torch.Tensor:
    return x + x if x.shape[0] == 1 else 2 * x


REFUSED = {
    one_row: ((1, 3), "x must have B >= 2, not 1"),
    several_rows: ((1, 3), "x must have B >= 2, not 1"),
    other_type: ((1, 3), "x must have B >= 2, not 1"),
    fails: ((1, 3), "x must have B >= 2, not 1"),
    one_column: ((2, 1), "x must have D >= 2, not 1"),
    one_element: ((1, 1), r"x must be \[B, D\] with .* != 1, not \[1, 1\]"),
}


@pytest.mark.parametrize("forward", REFUSED, ids=lambda f: f.__name__)
def test_refused_at_one(forward: Forward) -> None:
    program = torch2mlx.compile(Branch(forward), (torch.randn(2, 3),))
    module = program.load()
    shape, message = REFUSED[forward]
    with pytest.raises(ValueError, match=f"^{message}$"):
        module(mx.zeros(shape))
    x = torch.randn(5, 4)
    assert np.allclose(np.array(module(mx.array(x.numpy()))), forward(x))
    (note,) = program.report.notes
    assert "the model compares sizes at" in note
    assert f"{__file__}:{forward.__code__.co_firstlineno + 1}: " in note
    assert program.verify().ok


def test_where_both_sides_agree() -> None:
    program = torch2mlx.compile(Branch(the_same), (torch.randn(2, 3),))
    x = torch.randn(1, 3)
    assert program.report.notes == []
    assert np.allclose(np.array(program.load()(mx.array(x.numpy()))), 2 * x)


def test_beside_a_number() -> None:
    """An argument that is no array has a placeholder, too."""

    class Plus(nn.Module):
        def forward(self, x: torch.Tensor, number: int) -> torch.Tensor:
            return x + number if x.shape[0] == 1 else number + x

    program = torch2mlx.compile(Plus(), (torch.randn(2, 3), 2))
    x = torch.randn(1, 3)
    assert program.report.notes == []
    assert np.allclose(np.array(program.load()(mx.array(x.numpy()))), x + 2)


def test_without_values() -> None:
    """On the meta device nothing can be compared: refused."""
    x = torch.empty(2, 3, device="meta")
    program = torch2mlx.compile(Branch(the_same), (x,))
    assert "`x.shape[0]` must be at least 2" in program.report.notes[0]


def test_what_forward_writes_to_stays() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x * self.count if x.shape[0] == 1 else x + x * 0

    model = Counter()
    program = torch2mlx.compile(model, (torch.ones(2, 3),))
    assert float(model.count) == 0
    assert "at least" not in str(program.report.notes)  # the first call is the same
