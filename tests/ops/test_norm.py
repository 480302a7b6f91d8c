"""Normalisation by computed weights and statistics, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import torch2mlx
from tests.lowering import lowered, run_lowered, to_mlx, to_numpy
from tests.ops.cases import case

X = torch.randn(3, 6, 4, 5) + 1
W, B = torch.rand(6) + 0.5, torch.randn(6)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case(
            "batch, running",
            lambda x, w, b: F.batch_norm(x, b, w, w, b, eps=0.1),
            X,
            W,
            B,
        ),
        case("batch, no weights", lambda x, w, b: F.batch_norm(x, b, w), X, W, B),
        case(
            "batch of vectors",
            lambda x, w, b: F.batch_norm(x[..., 0, 0], b, w, w, b),
            X,
            W,
            B,
        ),
        case("layer", lambda x, w: F.layer_norm(x, (5,), w, w - 1), X, W[:5]),
        case("layer, no weights", lambda x: F.layer_norm(x, (4, 5)), X),
        case(
            "layer, two axes",
            lambda x, w: F.layer_norm(x, (4, 5), w, w - 1),
            X,
            torch.rand(4, 5),
        ),
        case("rms", lambda x, w: F.rms_norm(x, (5,), w, 0.1), X, W[:5]),
        case("rms, small numbers", lambda x: F.rms_norm(x / 1000, (4, 5)), X),
        case("group", lambda x, w, b: F.group_norm(x, 3, w, b, 0.1), X, W, B),
        case("group of channels", lambda x: F.group_norm(x[..., 0, 0], 2), X),
        case("instance", lambda x, w, b: F.instance_norm(x, weight=w, bias=b), X, W, B),
        case(
            "instance, running",
            lambda x, w, b: F.instance_norm(x, b, w, w, b, use_input_stats=False),
            X,
            W,
            B,
        ),
        case("normalize", lambda x: F.normalize(x, dim=1), X),
        case("normalize by 1-norm", lambda x: F.normalize(x, 1, dim=-1), X),
        case(
            "weight norm",
            lambda v, g: torch._weight_norm(v, g, 0),
            X,
            torch.rand(3, 1, 1, 1),
        ),
    ],
)
def test_norm(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, tolerance=2e-5)
    assert not lowered(function, args).layers


def test_native_norms() -> None:
    aten = torch.ops.aten
    run_lowered(
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, b, w, False, 0.1, 0.1),
        (X, W, B),
        tolerance=2e-5,
    )
    run_lowered(
        lambda x, w, b: aten.native_group_norm(x, w, b, 0, 6, 20, 2, 0.1),
        (X[:0], W, B),
        dynamic=False,
    )


@pytest.mark.parametrize(
    "norm", ["_native_batch_norm_legit", "_batch_norm_with_update"]
)
def test_running_statistics_are_updated(norm: str) -> None:
    class Norm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", W.clone())
            self.register_buffer("mean", B.clone())
            self.register_buffer("var", W.clone())

        def forward(self, x: torch.Tensor) -> Any:
            training = [True] if norm == "_native_batch_norm_legit" else []
            function = getattr(torch.ops.aten, norm)
            arguments = (
                x,
                self.weight,
                self.weight,
                self.mean,
                self.var,
                *training,
                0.3,
                0.1,
            )
            return function(*arguments)[0]

    model = Norm()
    module = torch2mlx.compile(model, (X,), io_layout="torch").load()
    np.testing.assert_allclose(
        to_numpy(module(to_mlx(X))), model(X), rtol=2e-5, atol=2e-5
    )
    np.testing.assert_allclose(to_numpy(module.mean), model.mean, rtol=2e-5)
    np.testing.assert_allclose(to_numpy(module.var), model.var, rtol=2e-5)


def test_local_response_norm() -> None:
    run_lowered(lambda x: F.local_response_norm(x, 3), (X,))


def test_the_batch_norm_of_nothing() -> None:
    nothing = torch.zeros(0)
    run_lowered(torch.nn.functional.batch_norm, (nothing, nothing, nothing))
