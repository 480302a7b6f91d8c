"""Reductions into cells, and reads and writes where a mask is set, against PyTorch."""

from __future__ import annotations

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import floats, ints

M = torch.randn(5, 4)
MASK = torch.rand(3, 4) > 0.5
ROWS = ints(0, 2, 2)
masked_index = torch.ops.aten._unsafe_masked_index
masked_put = torch.ops.aten._unsafe_masked_index_put_accumulate


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_index_reduce(reduce: str, include_self: bool) -> None:
    def function(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.index_reduce(0, i, v, reduce, include_self=include_self)

    run_lowered(function, (M, ROWS, torch.randn(3, 4)))
    run_lowered(function, (torch.tensor(2.0), ints(0), torch.tensor(3.0)))
    run_lowered(
        lambda x, i, v: x.index_reduce(-1, i, v, reduce, include_self=include_self),
        (torch.randint(9, (5, 4)), ROWS, torch.randint(9, (5, 3))),
    )


def test_masked_index() -> None:
    def function(x: torch.Tensor, m: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return masked_index(x, m, [i], 0.5)

    beyond = ints(0, 7, -3)  # of no effect where the mask is not set
    mask = torch.tensor([[True], [False], [False]])
    run_lowered(function, (M, MASK, ROWS))
    run_lowered(function, (M, mask, beyond))
    run_lowered(lambda x, m: masked_index(x, m, [None, ROWS], 0.5), (M, M[:, 1:] > 0))


def test_masked_put() -> None:
    def function(x: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return masked_put(x, m, [ROWS], v)

    run_lowered(function, (M, MASK, torch.randn(3, 4)))


def test_put_of_nothing() -> None:
    nothing = torch.zeros(0)
    run_lowered(lambda x, i, v: x.put(i, v), (M, nothing.long(), nothing))
    run_lowered(
        lambda x, i, v: x.put(i, v), (floats(1.0, 2.0), ints(1, 0), floats(3.0, 4.0))
    )


@pytest.mark.parametrize("initial", [None, 1.5])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
def test_segment_reduce(reduce: str, initial: float | None) -> None:
    options = {"axis": 0, "unsafe": False, "initial": initial}

    def by_lengths(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, reduce, lengths=lengths, **options)

    def by_offsets(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(x, reduce, offsets=offsets, **options)

    run_lowered(by_lengths, (M, ints(2, 0, 3)))
    run_lowered(by_offsets, (M, ints(0, 2, 2, 5)))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_segments_of_a_part(reduce: str) -> None:
    run_lowered(
        lambda x, n: torch.segment_reduce(x, reduce, offsets=n, unsafe=True),
        (M, ints(1, 2, 4)),
    )


def test_segments_of_several_rows() -> None:
    lengths = torch.tensor([[1, 3], [2, 2], [0, 4], [4, 0], [1, 3]])
    run_lowered(
        lambda x, n: torch.segment_reduce(x, "sum", lengths=n, axis=1),
        (torch.randn(5, 4, 3), lengths),
    )
