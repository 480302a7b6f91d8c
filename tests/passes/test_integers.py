"""Arithmetic of integers and conditions gets shorter, and stays exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import check, ops
from tests.lowering import run_lowered
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.integers import integers
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.simplify import simplify

PASSES = (simplify, scalars, integers, drop_dead_code)
CASES = (torch.arange(-4, 5),), (torch.arange(-7, 3),)


def test_a_condition_times_a_number() -> None:
    def function(x: Any) -> Any:
        return (x > 0).long() * 16 + x

    assert ops(check(PASSES, function, *CASES)) == {"gt": 1, "where": 1, "add": 1}
    run_lowered(function, *CASES)


def test_the_negated_minimum_of_a_difference() -> None:
    def function(x: Any) -> Any:
        distance = x[None] - x[:, None]
        return -torch.min(distance, torch.zeros_like(distance))

    found = ops(check(PASSES, function, *CASES))
    assert found == {"unsqueeze": 2, "sub": 1, "clamp_min": 1}
    run_lowered(function, *CASES)


NEAR: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "of floats": ("mul", lambda x: (x > 0).float() * -2.0),
    "of integers": ("mul", lambda x: x.int().long() * 16),
    "of an array": ("mul", lambda x: (x > 0).long() * x),
    "another limit": ("neg", lambda x: -(x - x.flip(0)).clamp(max=1)),
    "used twice": ("neg", lambda x: (d := x - x.flip(0)) - -d.clamp(max=0)),
    "a float difference": (
        "neg",
        lambda x: -(x.float() - x.flip(0).float()).clamp(max=0),
    ),
    "a multiple": ("neg", lambda x: -torch.sub(x, x.flip(0), alpha=2).clamp(max=0)),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    operator, function = NEAR[near]
    assert ops(check(PASSES, function, *CASES))[operator] == 1
