"""What is computed twice is computed once, within one module call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.aten import check, ops
from torch2mlx.passes.common import common
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.simplify import simplify

PASSES = (simplify, common, drop_dead_code)


def counts(model: Any, *args: Any, tolerance: float = 0.0) -> Any:
    return ops(check(PASSES, model, args, tolerance=tolerance))


def test_chains() -> None:
    def function(x: Any) -> Any:
        rows = torch.arange(x.shape[1])[:, None] * 2
        columns = torch.arange(x.shape[1])[:, None] * 2
        return rows.T - columns, x.exp()[0] + x.exp()[1]

    found = counts(function, torch.randn(3, 4))
    assert (found["arange"], found["mul"], found["exp"]) == (1, 1, 1)


def test_views_stay() -> None:
    def function(x: Any) -> Any:
        return x[:, None].exp() + x[:, None].sin()

    assert counts(function, torch.randn(3, 4))["unsqueeze"] == 2


def test_numbers_of_other_types() -> None:
    def function(x: Any) -> Any:
        return (
            x + torch.full((4,), 1),
            x + torch.full((4,), 1.0),
            x * torch.full((4,), True),
        )

    assert counts(function, torch.ones(4, dtype=torch.int64))["full"] == 3


def test_random_numbers() -> None:
    def function(x: Any) -> Any:
        return (torch.rand_like(x) == torch.rand_like(x)).all()

    assert counts(function, torch.randn(9))["rand_like"] == 2


class Positions(nn.Module):
    def forward(self, x: Any) -> Any:
        return x + torch.arange(x.shape[1])


def test_each_module_call_by_itself() -> None:
    assert (
        counts(nn.Sequential(Positions(), Positions()), torch.randn(2, 3))["arange"]
        == 2
    )
