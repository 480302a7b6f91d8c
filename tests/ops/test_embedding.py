"""Bags of vectors and rows of bounded norm against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.lowering import run_lowered

TABLE = torch.randn(10, 4)
INDICES = torch.tensor([1, 2, 2, 9, 0, 5, 7])
OFFSETS = torch.tensor([0, 3, 3, 5])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"padding_idx": -1}])
def test_bags_of_one_length(mode: str, options: dict[str, Any]) -> None:
    def bags(indices: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(indices, table, mode=mode, **options)

    first = torch.tensor([[1, 2, 3], [2, 2, 2]]), TABLE
    run_lowered(bags, first, (torch.randint(0, 10, (5, 4)), TABLE))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("padding", [None, 2])
def test_bags_with_offsets(mode: str, last: bool, padding: int | None) -> None:
    def bags(
        indices: torch.Tensor, table: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        return F.embedding_bag(
            indices,
            table,
            offsets,
            mode=mode,
            include_last_offset=last,
            padding_idx=padding,
        )

    ends = torch.tensor([7]) if last else torch.tensor([], dtype=torch.int64)
    run_lowered(bags, (INDICES, TABLE, torch.cat([OFFSETS, ends])))


def test_weighted_bags() -> None:
    def bags(
        indices: torch.Tensor, weights: torch.Tensor, *offsets: torch.Tensor
    ) -> torch.Tensor:
        return F.embedding_bag(
            indices, TABLE, *offsets, mode="sum", per_sample_weights=weights
        )

    run_lowered(bags, (torch.randint(0, 10, (3, 5)), torch.randn(3, 5)))
    run_lowered(bags, (INDICES, torch.randn(7), OFFSETS))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_rows_of_bounded_norm(p: float) -> None:
    def lookup(indices: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return F.embedding(indices, table * 1.0, max_norm=0.9, norm_type=p)

    run_lowered(lookup, (INDICES[None], TABLE))
