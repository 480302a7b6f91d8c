"""Activations and softmax against PyTorch, every option changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.nn
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered, to_mlx
from tests.ops.cases import NAN, case, floats, ints
from torch2mlx.lower.interpret import MLXInterpreter

aten = torch.ops.aten

X = torch.linspace(-8, 8, 24).reshape(2, 4, 3)
MASKED = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])  # log: a row of -inf


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("relu", F.relu, X),
        case("relu of ints", F.relu, ints(-2, 3)),
        case("relu of nan", F.relu, floats(NAN, -1.0)),
        case("relu6", F.relu6, X),
        case("gelu", F.gelu, X),
        case("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), X),
        case("silu", F.silu, X),
        case("mish", F.mish, X),
        case("selu", F.selu, X),
        case("elu", lambda x: F.elu(x, 0.7), X),
        case("celu", lambda x: F.celu(x, 1.5), X),
        case("hardswish", F.hardswish, X),
        case("hardsigmoid", F.hardsigmoid, X),
        case("hardtanh", lambda x: F.hardtanh(x, -0.5, 2), X),
        case("hardshrink", lambda x: F.hardshrink(x, 1.5), X),
        case("softshrink", lambda x: F.softshrink(x, 1.5), X),
        case("softshrink of nan", F.softshrink, floats(NAN, 2.0)),
        case("tanhshrink", F.tanhshrink, X),
        case("softsign", F.softsign, X),
        case("threshold", lambda x: F.threshold(x, 0.5, -3), X),
        case("leaky_relu", F.leaky_relu, X),
        case("steep leaky_relu", lambda x: F.leaky_relu(x, 2.5), X),
        case("negative leaky_relu", lambda x: F.leaky_relu(x, -0.3), X),
        case("prelu", lambda x, w: F.prelu(x, w), X, torch.rand(4)),
        case("prelu of one", lambda x, w: F.prelu(x, w), X, torch.rand(1)),
        case("rrelu", F.rrelu, X),
        case("logsigmoid", F.logsigmoid, X * 5),
        case("softplus", F.softplus, X * 5),
        case("softplus options", lambda x: F.softplus(x, 2, 3), X),
        case("glu", lambda x: F.glu(x, 1), X),
        case("softmin", lambda x: F.softmin(x, 1), X),
        case("softmax", lambda x: F.softmax(x, -1), X),
        case(
            "softmax of ints",
            lambda x: F.softmax(x, 0, dtype=torch.float32),
            ints(1, 2),
        ),
        case("softmax of a number", lambda x: F.softmax(x, 0), torch.tensor(2.0)),
        case("safe softmax", lambda x: aten._safe_softmax(x.log(), 1), MASKED),
        case(
            "gradient of softmax",
            lambda g, x: aten._softmax_backward_data(g, x.softmax(1), 1, torch.float32),
            X,
            X.flip(0),
        ),
        case(
            "gradient of log_softmax",
            lambda g, x: aten._log_softmax_backward_data(
                g, x.log_softmax(1), 1, torch.float32
            ),
            X,
            X.flip(0),
        ),
        case("log_softmax", lambda x: F.log_softmax(x, 1), X),
        case(
            "log_softmax of nothing", lambda x: F.log_softmax(x, 1), torch.zeros(3, 0)
        ),
    ],
)
def test_activation(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_half_softmax_sums_in_single_precision() -> None:
    run_lowered(
        lambda x: F.softmax(x, 0).sum(),
        (torch.full((70_000,), 1.0).half(),),
        tolerance=2e-3,
    )


def test_random_slopes() -> None:
    program = lowered(lambda x: F.rrelu(x, 0.2, 0.4, training=True), (X,))
    x = to_mlx(X)
    y = list(MLXInterpreter(program, {}).run(x))[-1]
    slopes = np.array(y / x)
    assert (slopes[X > 0] == 1).all()
    below = slopes[X < 0]
    assert ((below >= 0.2 - 1e-6) & (below <= 0.4 + 1e-6)).all()
    assert len(set(below.tolist())) > 1


def test_code_is_what_people_write() -> None:
    def targets(function: Callable[..., Any]) -> list[Any]:
        return [
            n.target
            for n in lowered(function, (X,)).graph.nodes
            if n.op == "call_function"
        ]

    assert targets(F.relu) == [mlx.nn.relu]
    assert targets(F.silu) == [mlx.nn.silu]
    assert targets(lambda x: F.gelu(x, approximate="tanh")) == [mlx.nn.gelu_approx]
