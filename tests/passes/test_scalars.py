"""Constant arrays without axes as Python numbers."""

from __future__ import annotations

from typing import Any

import torch

from tests.aten import check, ops
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.formulas import formulas
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.simplify import simplify

PASSES = (functionalise, simplify, formulas, scalars, drop_dead_code)


def test_numbers() -> None:
    def function(x: Any) -> Any:
        eight = torch.tensor(8.0)
        y = x.clone()
        y[0] = torch.tensor(3.0)
        lowest = torch.full((), -1e9)
        masked = torch.where(x > torch.tensor(0), x, lowest)
        mask = torch.where(x > 0, torch.tensor(0.0), lowest)
        return (
            x / eight + torch.tensor(2),
            y,
            masked,
            mask,
            torch.where(x > 1, lowest, x),
        )

    captured = check(PASSES, function, (torch.randn(3, 4),))
    assert not {"full", "scalar_tensor", "zeros"} & set(ops(captured))
    assert not [key for key in captured.weights.values() if "lifted" in key]


def test_where_a_number_would_change_the_dtype() -> None:
    def function(x: Any) -> Any:
        return x.int() + torch.tensor(2.5, dtype=torch.float64), torch.tensor(1.5) ** x

    captured = check(PASSES, function, (torch.randn(3, 4),))
    assert ops(captured)["full"] == 2


def test_arrays_of_one_number() -> None:
    def function(x: Any) -> Any:
        wide = torch.minimum(x[0], torch.full((3, 4), 0.5))
        low = torch.where(x > 0, torch.zeros(()).expand(3, 4), -1e9)
        return (
            torch.min(x, torch.full_like(x, 0.5)),
            torch.maximum(x, torch.zeros_like(x)),
            low,
            wide,
        )

    found = ops(check(PASSES, function, (torch.randn(3, 4),)))
    assert (found["clamp_max"], found["clamp_min"]) == (1, 1)
    assert found["minimum"] == found["full"] == 1, "it makes the other operand wider"
    assert not {"full_like", "zeros_like", "zeros"} & set(found)
