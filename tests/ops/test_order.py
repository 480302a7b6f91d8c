"""The k-th, the middle and the most frequent element against PyTorch: nan, ties, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from tests.lowering import run_lowered, to_mlx, to_numpy
from tests.ops.cases import INF, NAN, bools, case, floats, ints
from torch2mlx_templates import helpers

X = torch.randn(3, 4, 5)
HOLES = torch.where(X > 0.7, NAN, X)
EMPTY = torch.where(X > -9, NAN, X)
TIES = torch.tensor([[2, 7, 7, 1, 2], [5, 5, 0, 5, 0], [4, 3, 2, 1, 0]])
MODES = ("linear", "lower", "higher", "nearest", "midpoint")


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("median", lambda x: x.median(), floats(4.0, 1.0, 3.0, 2.0)),
        case("median of nothing", lambda x: x.median(), torch.zeros(0)),
        case("median of a number", lambda x: x.median(0), torch.tensor(2.0)),
        case("nanmedian", lambda x: x.nanmedian(), HOLES),
        case("nanmedian along", lambda x: x.nanmedian(1), HOLES),
        case("nanmedian keepdim", lambda x: x.nanmedian(-1, keepdim=True), HOLES),
        case("nanmedian of ints", lambda x: x.nanmedian(1), TIES),
        case("nanmedian of nans", lambda x: x.nanmedian(), floats(NAN, NAN)),
        case("kthvalue", lambda x: x.kthvalue(3, 0, keepdim=True), X),
        case("mode", lambda x: x.mode(), TIES),
        case("mode along", lambda x: x.mode(0, keepdim=True), TIES),
        case("mode of floats", lambda x: x.mode(1), X),
        case("mode of nan", lambda x: x.mode(), floats(1.0, 1.0, NAN, NAN, NAN, 2.0)),
        case("mode of bools", lambda x: x.mode(), bools(1, 0, 1)),
        case("mode of a number", lambda x: x.mode(), torch.tensor(2.0)),
    ],
)
def test_elements_and_indices(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("mode", MODES)
def test_nanquantile(mode: str) -> None:
    run_lowered(lambda x: x.nanquantile(0.3, 1, interpolation=mode), (HOLES,))
    run_lowered(
        lambda x, q: x.nanquantile(q, keepdim=True, interpolation=mode),
        (HOLES, floats(0.0, 0.35, 1.0)),
    )
    run_lowered(lambda x: x.nanquantile(0.3, 1, interpolation=mode), (EMPTY,))


@pytest.mark.parametrize("mode", ["lower", "higher", "nearest"])
def test_quantiles_of_infinities(mode: str) -> None:
    run_lowered(
        lambda x: x.quantile(0.6, interpolation=mode), (floats(-INF, 1.0, INF, INF),)
    )


def test_several_sizes() -> None:
    run_lowered(lambda x: x.mode(1), (TIES,), (ints(3, 3, 1, 1).reshape(2, 2),))
    run_lowered(lambda x: x.nanmedian(1), (HOLES,), (torch.randn(2, 6, 3),))


@pytest.mark.parametrize(
    ("of_arrays", "of_tensors"),
    [
        (lambda x: helpers.lower_nanmedian(x, 1)[0], lambda x: x.nanmedian(1)[0]),
        (lambda x: helpers.mode(x, 1)[0], lambda x: x.mode(1)[0]),
        (lambda x: helpers.quantile(x, 0.3, 1), lambda x: x.quantile(0.3, 1)),
        (lambda x: helpers.nanquantile(x, 0.3, 1), lambda x: x.nanquantile(0.3, 1)),
    ],
    ids=["nanmedian", "mode", "quantile", "nanquantile"],
)
def test_gradients(of_arrays: Callable[..., Any], of_tensors: Any) -> None:
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(of_tensors(x).square().sum(), x)
    actual = mx.grad(lambda x: mx.sum(mx.square(of_arrays(x))))(to_mlx(X))
    torch.testing.assert_close(torch.from_numpy(to_numpy(actual)), expected)
