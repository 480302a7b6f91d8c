"""Gradients that a model computes itself, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import run_lowered
from tests.ops.cases import case

aten = torch.ops.aten

X = torch.randn(2, 3, 4, 5)
GRAD = torch.randn(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("dropout", aten.native_dropout_backward, GRAD, X > 0, 1.25),
        case("sigmoid", aten.sigmoid_backward, GRAD, X.sigmoid()),
        case("tanh", aten.tanh_backward, GRAD, X.tanh()),
        case("relu", lambda g, x: aten.threshold_backward(g, x, 0), GRAD, X),
        case("silu", aten.silu_backward, GRAD, X),
    ],
)
def test_elementwise(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    tensors = tuple(a for a in args if isinstance(a, torch.Tensor))
    run_lowered(lambda *t: function(*t, *args[len(t) :]), tensors)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 1}, {"padding": 1, "ceil_mode": True}, {"dilation": 2}]
)
def test_max_pool(axes: int, options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, *[5] * axes)
    pool = (F.max_pool2d, F.max_pool3d)[axes - 2]
    y, places = pool(x, 2, return_indices=True, **options)
    backward = (
        aten.max_pool2d_with_indices_backward,
        aten.max_pool3d_with_indices_backward,
    )[axes - 2]

    def function(g: Any, x: Any, places: Any) -> Any:
        stride, padding, dilation = (
            [options.get(name, default)] * axes
            for name, default in (("stride", 2), ("padding", 0), ("dilation", 1))
        )
        ceil_mode = options.get("ceil_mode", False)
        return backward(g, x, [2] * axes, stride, padding, dilation, ceil_mode, places)

    run_lowered(function, (torch.randn(y.shape), x, places), dynamic=False)
    run_lowered(function, (torch.randn(y[0].shape), x[0], places[0]), dynamic=False)
