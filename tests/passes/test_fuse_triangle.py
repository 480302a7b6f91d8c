"""Comparisons of positions become triangles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import fused
from torch2mlx.passes.common import common

FORMS: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "causal": (0, lambda r, c: c <= r),
    "strictly": (-1, lambda r, c: r > c),
    "window": (-4, lambda r, c: c > r - 4),
    "after": (0, lambda r, c: c > r),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    diagonal, compare = FORMS[name]

    def function(x: Any, padding: Any) -> Any:
        positions = torch.arange(x.shape[1])[None].expand(x.shape[0], -1)
        mask = compare(positions[:, None, :, None], positions[:, None, None, :])
        return mask & padding[:, None, None, :]

    args = (torch.randn(2, 7), torch.randn(2, 7) > 0)
    others = (torch.randn(3, 5), torch.randn(3, 5) > 0)
    captured = fused("triangle", function, args, others)
    (node,) = (n for n in captured.graph.nodes if n.name.startswith("tri"))
    assert node.args[2] == diagonal
    upper = name in ("window", "after")
    assert ops(captured)["bitwise_not"] == int(upper)
    run_lowered(function, args, others)


def test_rectangles() -> None:
    def function(x: Any, y: Any) -> Any:
        rows, columns = torch.arange(x.shape[0]), torch.arange(y.shape[0])
        return torch.where(columns <= rows[:, None], x[:, None], y)

    args, others = (torch.randn(3), torch.randn(4)), (torch.randn(6), torch.randn(2))
    assert ops(fused("triangle", function, args, others))["tri"] == 1
    run_lowered(function, args, others)


def test_compared_again() -> None:
    """A window is two comparisons of the positions that are there already."""

    def function(x: Any) -> Any:
        positions = torch.arange(x.shape[1])[None].expand(x.shape[0], -1)
        rows, columns = positions[:, :, None], positions[:, None, :]
        return (columns <= rows) & (columns > rows - 4) & (x > 0)[:, None]

    args, others = (torch.randn(2, 7),), (torch.randn(3, 5),)
    captured = fused("triangle", function, args, others)
    found = ops(captured)
    assert (found["tri"], found["le"], found["gt"]) == (0, 1, 2)
    common(captured)
    assert ops(captured)["arange"] == 1
    run_lowered(function, args, others)


def test_compared_again_elsewhere() -> None:
    """Module calls share no positions."""

    class Mask(torch.nn.Module):
        def __init__(self, diagonal: int) -> None:
            super().__init__()
            self.diagonal = diagonal

        def forward(self, x: Any) -> Any:
            positions = torch.arange(x.shape[0])
            return (positions <= positions[:, None] + self.diagonal) & (x > 0)

    model = torch.nn.Sequential(Mask(1), Mask(2))
    captured = fused("triangle", model, (torch.randn(5),), (torch.randn(4),))
    assert ops(captured)["tri"] == 2


NEAR: dict[str, Callable[[Any, Any], Any]] = {
    "rate": lambda r, c: c * 2 <= r,
    "sum": lambda r, c: c <= -r,
    "equal": lambda r, c: c == r,
    "difference": lambda r, c: (c - r) > torch.zeros_like(c - r),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    def function(x: Any) -> Any:
        positions = torch.arange(x.shape[0])
        return NEAR[near](positions[:, None], positions[None, :]) & (x > 0)

    captured = fused("triangle", function, (torch.randn(5),))
    assert not ops(captured)["tri"]
    run_lowered(function, (torch.randn(5),))
