"""Concatenations that begin with earlier ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.aten import check
from torch2mlx.capture import Captured
from torch2mlx.passes.growing import growing
from torch2mlx.passes.simplify import simplify

PASSES = (simplify, growing)
aten = torch.ops.aten


def lengths(model: Any, *args: Any) -> list[int]:
    """How many arrays each concatenation takes."""
    return list(map(length, concatenations(check(PASSES, model, args))))


def length(node: torch.fx.Node) -> int:
    arrays: Any = node.args[0]
    return len(arrays)


def concatenations(captured: Captured) -> list[torch.fx.Node]:
    return [n for n in captured.graph.nodes if n.target is aten.cat.default]


X = torch.randn(2, 3)


def test_a_list_that_grows() -> None:
    def function(x: Any) -> Any:
        xs = [x]
        for _ in range(4):
            xs.append(torch.sin(torch.cat(xs, 1)))
        return torch.cat(xs, 1)

    assert lengths(function, X) == [2, 2, 2, 2]


def test_negative_axes_are_the_same() -> None:
    def function(x: Any) -> Any:
        return torch.cat([x, x, x + 1], -1), torch.cat([x, x], 1)

    assert lengths(function, X) == [3, 2]  # only what is there earlier is of use

    def reverse(x: Any) -> Any:
        return torch.cat([x, x], 1), torch.cat([x, x, x + 1], -1)

    assert lengths(reverse, X) == [2, 2]


def test_near_misses() -> None:
    def other_axis(x: Any) -> Any:
        return torch.cat([x, x], 0), torch.cat([x, x, x], 1)

    def other_order(x: Any) -> Any:
        return torch.cat([x, x + 1], 1), torch.cat([x + 1, x, x], 1)

    def other_end(x: Any) -> Any:
        return torch.cat([x, x + 1], 1), torch.cat([x, x, x + 1], 1)

    def other_dtype(x: Any) -> Any:
        return torch.cat([x, x], 1), torch.cat([x, x, x.double()], 1)

    for function in (other_axis, other_order, other_end, other_dtype):
        assert lengths(function, X) == [2, 3], function.__name__


class Layer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Linear(width, 3)

    def forward(self, xs: Any) -> Any:
        return self.fc(torch.cat(xs, 1))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(3 * i + 3) for i in range(4)])

    def forward(self, x: Any) -> Any:
        xs = [x]
        for layer in self.layers:
            xs.append(layer(xs))
        return torch.cat(xs, 1)


def test_what_layers_share_belongs_to_their_block() -> None:
    captured = check(PASSES, Block(), (X,), tolerance=1e-6)
    found = concatenations(captured)
    assert list(map(length, found)) == [2, 2, 2, 2]
    paths = [[path for path, _ in n.meta["nn_module_stack"].values()] for n in found]
    assert paths == [[""]] * 4
