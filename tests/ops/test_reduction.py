"""Reductions and scans against PyTorch: accumulation dtypes, ddof, nan, ties and empty arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import NAN, bools, case, floats, ints
from torch2mlx.errors import UnsupportedError

X = torch.randn(3, 4, 5)
TIES = torch.tensor([[2, 7, 7, 1], [5, 5, 0, 5]])
BIG = ints(2**31 - 1, 2**31 - 1)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("bool sum", lambda x: x.sum(), bools(1, 1, 0)),
        case("bool sum along", lambda x: (x > 0).sum(1), X),
        case("bool cumsum", lambda x: x.cumsum(0), bools(1, 1, 0, 1)),
        case("bool prod", lambda x: x.prod(), bools(1, 1, 0)),
        case("bool mean as float", lambda x: x.float().mean(), bools(1, 1, 0)),
        case("uint8 sum", lambda x: x.sum(), ints(200, 200).byte()),
        case("uint8 cumsum", lambda x: x.cumsum(0), ints(200, 200).byte()),
        case("int8 prod", lambda x: x.prod(), ints(100, 100).char()),
        case("int32 sum", lambda x: x.sum(), BIG.int()),
        case("int64 sum", lambda x: x.sum(), BIG),
        case("int64 prod", lambda x: x.prod(), ints(2**20, 2**20)),
        case("positions", lambda x: torch.arange(100_000).sum() + x.sum(), ints(1)),
        case("product of positions", lambda x: (torch.arange(15) + x).prod(), ints(1)),
        case("sum as float", lambda x: x.sum(dtype=torch.float32), ints(1, 2)),
        case("sum of nothing", lambda x: x.sum(0), torch.zeros(0, 3)),
        case("prod of nothing", lambda x: x.prod(), torch.zeros(0)),
        case("all axes", lambda x: x.sum(()), X),
        case("two axes", lambda x: x.sum((0, -1), keepdim=True), X),
        case("no axes", lambda x: x.sum(0), torch.tensor(2.5)),
        case("nansum", lambda x: x.nansum(), floats(1.0, NAN, 2.0)),
        case("nanmean", lambda x: x.nanmean(), floats(1.0, NAN, 2.0)),
        case("count", lambda x: x.count_nonzero(dim=1), TIES),
    ],
)
def test_sums(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_half_means_do_not_overflow() -> None:
    run_lowered(
        lambda x: x.mean(), (torch.full((4096,), 100.0).half(),), tolerance=1e-3
    )


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("max", lambda x: x.max(), floats(1.0, NAN, 2.0)),
        case("min along", lambda x: x.min(0), floats(1.0, NAN, 2.0)),
        case("max along", lambda x: x.max(1), TIES),
        case("max keepdim", lambda x: x.max(-1, keepdim=True), TIES),
        case("amax", lambda x: x.amax((0, 2)), X),
        case("amin of all", lambda x: x.amin(), X),
        case("aminmax", lambda x: tuple(torch.aminmax(x, dim=1)), X),
        case("argmax", lambda x: x.argmax(1), TIES),
        case("argmax of all", lambda x: x.argmax(), TIES),
        case("argmax of a condition", lambda x: (x > 1).int().argmax(1), TIES),
        case("argmin of a condition", lambda x: (x > 1).long().argmin(), TIES),
        case("argmin keepdim", lambda x: x.argmin(0, keepdim=True), TIES),
        case("argmax minus one", lambda x: x.argmax(1) - 3, TIES),
        case("argmax of nan", lambda x: x.argmax(), floats(1.0, NAN, 2.0)),
        case("argmax as index", lambda x: x[0][x.argmax(1) - 1], TIES),
        case("any", lambda x: (x > 2).any(), X),
        case("all along", lambda x: (x > -2).all(1), X),
        case("any of ints", lambda x: x.any(1, keepdim=True), TIES),
        case("cummax", lambda x: x.cummax(1), TIES),
        case("cummin", lambda x: x.cummin(1), TIES),
        case("cummax of nan", lambda x: x.cummax(0), floats(1.0, NAN, 2.0)),
        case("max without axes", lambda x: x.max(0), torch.tensor(2.0)),
        case("max of an empty batch", lambda x: x.max(1), torch.zeros(0, 3)),
    ],
)
def test_extrema(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unbiased": False},
        {"correction": 0},
        {"correction": 2, "dim": 1},
        {"dim": (0, 2), "keepdim": True},
        {"dim": -1, "unbiased": True},
        {"correction": 1.5},
        {"correction": 0.3, "dim": (0, 2)},
    ],
)
def test_spread(name: str, options: dict[str, Any]) -> None:
    run_lowered(lambda x: getattr(torch, name)(x, **options), (X,))
    run_lowered(lambda x: getattr(torch, f"{name}_mean")(x, **options), (X,))


def test_fractional_correction_of_few_elements_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="correction"):
        lowered(lambda x: torch.var(x, dim=0, correction=3.5), (X,), dynamic=False)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_of_nothing(name: str) -> None:
    run_lowered(lambda x: getattr(torch, name)(x, dim=0), (torch.zeros(2, 0),))
    run_lowered(lambda x: getattr(torch, name)(x), (torch.zeros(0, 3),), dynamic=False)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("logsumexp", lambda x: x.logsumexp((0, 1)), X),
        case("logsumexp of ints", lambda x: x.logsumexp(0), TIES),
        case(
            "logsumexp of complex numbers",
            lambda x: torch.complex(x, 4 * x).logsumexp(0),
            X,
        ),
        case("cumsum", lambda x: x.cumsum(-2), X),
        case("cumprod", lambda x: x.cumprod(1), X),
        case("cumprod of ints", lambda x: x.cumprod(1), TIES),
        case("logcumsumexp", lambda x: x.logcumsumexp(2), X),
        case("scan without axes", lambda x: x.cumsum(0), torch.tensor(3)),
        case("median", lambda x: x.median(), floats(4.0, 1.0, 3.0, 2.0)),
        case("median of a matrix", lambda x: x.median(), X),
        case("median along", lambda x: x.median(1), X),
        case(
            "median of nan", lambda x: x.median(0, keepdim=True), floats(4.0, NAN, 3.0)
        ),
        case("kthvalue", lambda x: x.kthvalue(2, 1), X),
        case("quantile", lambda x: x.quantile(0.3, 1), X),
        case(
            "quantiles",
            lambda x, q: x.quantile(q, 2, keepdim=True),
            X,
            floats(0.1, 0.5),
        ),
        case("quantile of all", lambda x: x.quantile(0.25, keepdim=True), X),
        case("histc", lambda x: x.histc(4, -1, 1), X),
        case("histc of all", lambda x: x.histc(5), X),
        case("histc of equals", lambda x: x.histc(3), floats(2.0, 2.0)),
        case("diff", lambda x: x.diff(2, 1), X),
        case("diff of bools", lambda x: x.diff(), bools(1, 0, 0, 1)),
        case("diff with ends", lambda x, y: x.diff(prepend=y, append=y), X, X[..., :2]),
        case("no diff", lambda x, y: x.diff(0, prepend=y), X, X),
    ],
)
def test_order_and_scans(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("mode", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_quantile_modes(mode: str) -> None:
    run_lowered(lambda x: x.quantile(0.3, 2, interpolation=mode), (X,))


def test_code_is_what_people_write() -> None:
    (mean,) = [
        n
        for n in lowered(
            lambda x: x.mean((2, 3)), (torch.randn(2, 3, 4, 5),)
        ).graph.nodes
        if n.op == "call_function"
    ]
    assert mean.target is mx.mean
    assert mean.kwargs == {"axis": (2, 3)}
