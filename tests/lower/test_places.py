"""Places are cast to signed integers only where someone could tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import lowered, run_lowered
from torch2mlx.ir import intrinsics

X = (torch.randn(4, 6),)


def sorts_twice(x: Any) -> Any:
    order = torch.argsort(x)
    return torch.gather(x, 1, order), torch.gather(x, 1, torch.argsort(order))


def picks_rows(x: Any) -> Any:
    return x[x[:, 0].argsort()[:2].flip(0)]


def picks_the_best(x: Any) -> Any:
    values, index = x.softmax(-1).topk(2)
    return torch.gather(x, 1, index) * values


def embeds(x: Any) -> Any:
    return x[:, x.argmax(1)]


def gives_places(x: Any) -> Any:
    return x.argmax(1)


def gives_some_places(x: Any) -> Any:
    order = torch.argsort(x)
    return torch.gather(x, 1, order), order[:, :2]


def subtracts(x: Any) -> Any:
    return x[x[:, 0].argsort() - 1]


def beside_signed_ones(x: Any) -> Any:
    return x[torch.arange(x.shape[0]), x.argmax(1)]


def is_a_number_too(x: Any) -> Any:
    order = x[:, 0].argsort()
    return x[order] * order[:, None]


def casts(graph: torch.fx.Graph) -> int:
    return sum(node.target is intrinsics.astype for node in graph.nodes)


@pytest.mark.parametrize("function", [sorts_twice, picks_the_best, embeds])
def test_no_cast(function: Callable[[Any], Any]) -> None:
    assert casts(lowered(function, X).graph) == 0
    run_lowered(function, X)


@pytest.mark.parametrize(
    "function",
    [gives_places, gives_some_places, subtracts, is_a_number_too, beside_signed_ones],
)
def test_a_cast(function: Callable[[Any], Any]) -> None:
    assert casts(lowered(function, X).graph) >= 1
    run_lowered(function, X)


def test_moved_places() -> None:
    assert casts(lowered(picks_rows, X).graph) == 0
    run_lowered(picks_rows, X)
