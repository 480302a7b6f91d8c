"""Histograms against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import case, floats

X, W = torch.randn(4, 5), torch.rand(4, 5)
POINTS, EDGE = torch.randn(3, 6, 2), floats(-1.0, 0.0, 0.5, 2.0)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("bins", lambda x: torch.histogram(x, 4), X),
        case("range", lambda x: torch.histogram(x, 4, range=(-1.0, 1.0)), X),
        case("on the edges", lambda x: torch.histogram(x, 4, range=(0.0, 2.0)), EDGE),
        case("density", lambda x: torch.histogram(x, 3, density=True), X),
        case("weights", lambda x, w: torch.histogram(x, 3, weight=w), X, W),
        case("edges", lambda x, e: torch.histogram(x, e), X, EDGE),
        case(
            "edges, weights, density",
            lambda x, e, w: torch.histogram(x, e, weight=w, density=True),
            X,
            EDGE,
            W,
        ),
        case("one value", lambda x: torch.histogram(x, 2), torch.ones(3)),
        case("nothing", lambda x: torch.histogram(x, 2), torch.zeros(0)),
        case("grid", lambda x: torch.histogramdd(x, [3, 2]), POINTS),
        case("square grid", lambda x: torch.histogramdd(x, 3), POINTS),
        case(
            "grid in a range",
            lambda x: torch.histogramdd(x, [3, 2], range=[-1.0, 1.0, 0.0, 2.0]),
            POINTS,
        ),
        case(
            "grid by edges",
            lambda x, e, w: torch.histogramdd(x, (e, e[1:]), weight=w, density=True),
            POINTS,
            EDGE,
            torch.rand(3, 6),
        ),
    ],
)
def test_histogram(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, dynamic=False)
