"""`len` of a tensor leaves its size free."""

from __future__ import annotations

import sys

import torch
from torch import nn

from tests.program import check


class Flat(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1).relu() / len(x.shape)


class Rows(nn.Module):
    """A loop needs the number: it stays fixed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((x[i] for i in range(len(x))), torch.zeros(x.shape[1]))


def test_another_batch() -> None:
    check(Flat(), (torch.randn(2, 3, 4),), (torch.randn(5, 3, 4),))
    assert "len" not in vars(sys.modules[__name__])


def test_a_loop_over_rows() -> None:
    program = check(Rows(), (torch.randn(2, 3),))
    (note,) = [n for n in program.report.notes if "x.shape[0]" in n]
    assert "range(len(x))" in note
