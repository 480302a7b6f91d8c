"""`torch.vmap` in a model: its operators work on whole arrays in the generated file."""

from __future__ import annotations

import torch
from torch import nn

from tests.program import check


class Products(nn.Module):
    """One map, over an axis in the middle, with an operand that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (self.linear(a) @ b.T).softmax(-1) * a.shape[0]

        return torch.vmap(product, in_dims=(1, None))(x, y)


class Pairs(nn.Module):
    """A map in a map, as for masks, with two results, one of which only the outer map changes."""

    def forward(
        self, rows: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        def pair(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.where(a > b, a, 2 * b), a

        inner = torch.vmap(pair, in_dims=(None, 0))
        return torch.vmap(inner, in_dims=(0, None))(rows.exp(), columns)


def test_a_map_over_an_axis_in_the_middle() -> None:
    torch.manual_seed(0)
    args = torch.randn(4, 2, 3), torch.randn(5, 3)
    check(Products(), args, (torch.randn(3, 6, 3), torch.randn(2, 3)))


def test_a_map_in_a_map() -> None:
    args = torch.randn(4), torch.randn(3)
    check(Pairs(), args, (torch.randn(2), torch.randn(7)))
