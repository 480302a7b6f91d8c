"""Symbols that are one, and sizes that must not be 1."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from tests.aten import as_module
from torch2mlx.capture import Captured, capture


def sizes(captured: Captured) -> dict[str, list[str]]:
    """Input -> its sizes."""
    inputs = {item.name for item in captured.inputs}
    return {
        node.name: [str(captured.expr(size)) for size in node.meta["val"].shape]
        for node in captured.graph.nodes
        if node.name in inputs
    }


def least(captured: Captured) -> dict[str, int]:
    """`input.shape[axis]` -> the least size, where that is not 1."""
    named = {
        size: f"{name}.shape[{axis}]"
        for name, shape in reversed(sizes(captured).items())
        for axis, size in enumerate(shape)
    }
    return {named[str(symbol)]: low for symbol, low in captured.minima.items()}


class Masked(nn.Module):
    """Its mask is indexed by the rows of the ids, which PyTorch does not see."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        rows = torch.arange(x.shape[0])
        return x * 2, mask[rows], mask.sum(-1)


IDS = torch.zeros(2, 5, dtype=torch.long)
FLOATS = torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("x", "mask", "same"),
    [
        (IDS, torch.ones(2, 7, dtype=torch.bool), True),
        (IDS, torch.ones(2, 7), True),
        (IDS, torch.ones(2, 1, 1, 7), True),
        (FLOATS, torch.ones(2, 7), True),
        (FLOATS, torch.ones(2, 7, dtype=torch.long), True),
        (IDS, torch.ones(2), False),
        (IDS, torch.ones(3, 7), False),
        (IDS, torch.ones(3, 7, dtype=torch.bool), False),
    ],
)
def test_masks_share_the_batch(x: torch.Tensor, mask: torch.Tensor, same: bool) -> None:
    model = Masked() if mask.ndim > 1 else as_module(lambda x, mask: (x * 2, mask * 2))
    found = sizes(capture(model, (x, mask)))
    first, second = found.values()
    assert (first[0] == second[0]) == same
    assert not first[0].isdigit()
    assert not second[0].isdigit()


def test_other_inputs_keep_their_own_batch() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return x * 2, y * 2

    x, y = sizes(capture(Two(), (torch.zeros(2, 5), torch.zeros(2, 7)))).values()
    assert x[0] != y[0]


def test_a_mask_without_batch() -> None:
    class Causal(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x @ x.transpose(-1, -2) + mask

    x, mask = sizes(
        capture(Causal(), (torch.zeros(5, 5, 4), torch.zeros(5, 5)))
    ).values()
    assert mask == [x[1], x[1]]
    assert x[0] != x[1]


SQUEEZED = [
    (lambda x: x.squeeze(), {"args_0.shape[0]": 2, "args_0.shape[1]": 2}),
    (lambda x: x.squeeze(0), {"args_0.shape[0]": 2}),
    (lambda x: x.squeeze((1, -1)), {"args_0.shape[1]": 2}),
    (lambda x: (x * 2).squeeze_(1), {"args_0.shape[1]": 2}),
    (lambda x: x[:, 3:].squeeze(1), {"args_0.shape[1]": 5}),
    (lambda x: x.repeat(2, 1, 1).squeeze(0), {}),
    (lambda x: x.squeeze(-1), {}),
    (lambda x: x[:, None].squeeze(1), {}),
]


@pytest.mark.parametrize(("function", "expected"), SQUEEZED)
def test_sizes_that_are_at_least_two(function: Any, expected: dict[str, int]) -> None:
    captured = capture(as_module(function), (torch.randn(3, 6, 1),))
    assert least(captured) == expected
    assert len(captured.notes) == len(expected)
    for what, low in expected.items():
        (note,) = [n for n in captured.notes if n.startswith(f"`{what}`")]
        assert f"must be at least {low}: squeeze would drop an axis of size 1" in note
        assert re.search(r" at .*\.py:\d+: \S", note)


def test_squeezes_without_gradient() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return x.squeeze(0)

    captured = capture(as_module(function), (torch.randn(3, 6),))
    assert least(captured) == {"args_0.shape[0]": 2}


def test_products_of_sizes() -> None:
    captured = capture(
        as_module(lambda x: x.flatten(0, 1).squeeze(0)), (torch.ones(3, 6, 2),)
    )
    assert captured.minima == {}
    (note,) = captured.notes
    assert "must not be 1: squeeze would drop an axis" in note
