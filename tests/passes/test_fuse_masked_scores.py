"""Masks that forbid by adding a low number choose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused

LOW = torch.finfo(torch.float32).min


def products(x: Any) -> Any:
    """Scores of as many queries as keys."""
    return (x @ x.mT).tanh() * 5


def causal(scores: Any) -> Any:
    queries, keys = (torch.arange(size) for size in scores.shape[-2:])
    return (keys <= queries[:, None])[None, None]


def window(scores: Any) -> Any:
    queries, keys = (torch.arange(size) for size in scores.shape[-2:])
    return causal(scores) & (keys > queries[:, None] - 3)[None, None]


MASKS: dict[str, Callable[[Any], Any]] = {"causal": causal, "window": window}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    def function(x: Any) -> Any:
        scores = products(x)
        mask = torch.where(MASKS[name](scores), 0.0, LOW)
        return torch.softmax(scores + mask, -1)

    args, others = (torch.randn(2, 3, 5, 4),), (torch.randn(1, 2, 7, 4),)
    captured = fused("masked_scores", function, args, others)
    (where,) = (n for n in captured.graph.nodes if n.name.startswith("where"))
    assert where.args[2] == -math.inf
    assert where.meta["val"].ndim == 4
    assert ops(captured)["add"] == 0
    assert [kind for kind, _ in decisions(captured, "masked_scores")] == ["fused"]
    run_lowered(function, args, others)


def test_in_half_precision() -> None:
    def function(x: Any) -> Any:
        scores = products(x)
        kept = torch.zeros((), dtype=torch.float16)
        mask = torch.where(causal(scores), kept, torch.finfo(torch.float16).min)
        weights = torch.softmax(scores + mask, -1, torch.float32)
        return weights.to(scores.dtype)

    args = (torch.randn(2, 3, 5, 4).half(),)
    captured = fused("masked_scores", function, args, tolerance=1e-3)
    assert ops(captured)["add"] == 0
    run_lowered(function, args)


def _with(allowed: Any, kept: float, low: float) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        scores = products(x)
        mask = torch.where(allowed(scores), kept, low)
        return torch.softmax(scores + mask, -1)

    return function


def _twice(x: Any) -> Any:
    scores = products(x)
    masked = scores + torch.where(causal(scores), 0.0, LOW)
    return torch.softmax(masked, -1), masked


def _along_queries(x: Any) -> Any:
    scores = products(x)
    return torch.softmax(scores + torch.where(causal(scores), 0.0, LOW), -2)


NEAR: dict[str, Callable[[Any], Any]] = {
    "not low": _with(causal, 0.0, -10.0),
    "a bias": _with(causal, 1.0, LOW),
    "rows without keys": _with(
        lambda s: causal(s) & (torch.arange(s.shape[-1]) > 0), 0.0, LOW
    ),
    "by value": _with(lambda s: s > 0, 0.0, LOW),
    "another axis": _along_queries,
    "used elsewhere": _twice,
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    args, others = (torch.randn(2, 3, 5, 4),), (torch.randn(1, 2, 7, 4),)
    captured = fused("masked_scores", NEAR[near], args, others)
    assert ops(captured)["add"] == 1
    run_lowered(NEAR[near], args, others)
