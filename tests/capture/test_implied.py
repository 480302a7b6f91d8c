"""Sizes that must be equal, though no comparison of the model says so alone."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx


class Halved(nn.Module):
    """Both images as one batch, as RAFT does: halves of it go with the first."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        one, two = torch.chunk(torch.cat([first, second]), 2)
        if one.shape != two.shape:
            raise ValueError("an odd number of rows")
        return torch.einsum("bi,bi,bj->bj", one, two, first)


def test_halves_of_a_batch() -> None:
    model = Halved()
    program = torch2mlx.compile(model, (torch.randn(2, 3), torch.randn(2, 3)))
    module = program.load()
    for rows in (1, 5):
        first, second = torch.randn(rows, 3), torch.randn(rows, 3)
        found = module(mx.array(first.numpy()), mx.array(second.numpy()))
        assert np.allclose(np.array(found), model(first, second), atol=1e-6)
    message = r"^first must be \[B, .*\] and second must be \[B, .*\], not \[3, 3\] and \[5, 3\]$"
    with pytest.raises(ValueError, match=message):
        module(mx.zeros((3, 3)), mx.zeros((5, 3)))
    (note,) = (n for n in program.report.notes if "first.shape[0]" in n)
    start = (
        "the sizes equal to `first.shape[0]` must be so: the model compares sizes at"
    )
    assert note.startswith(f"{start} {__file__}:")


class Concatenated(nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        both = torch.cat([first, second])
        return both if both.shape[0] > 3 else 2 * both


def test_sizes_that_need_not_be_equal() -> None:
    program = torch2mlx.compile(Concatenated(), (torch.ones(2, 3), torch.ones(2, 3)))
    found = program.load()(mx.ones((3, 3)), mx.ones((5, 3)))
    assert found.shape == (8, 3)


class Divided(nn.Module):
    """A comparison that divides by a size, which is 0 for the smallest ones."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        if first.shape[0] % (second.shape[0] // 4) == 0:
            return first + second.sum()
        return first - second.sum()


def test_a_comparison_that_divides_by_a_size() -> None:
    model, args = Divided(), (torch.randn(8), torch.randn(8))
    found = torch2mlx.compile(model, args).load()(*(mx.array(a.numpy()) for a in args))
    assert np.allclose(np.array(found), model(*args), atol=1e-6)
