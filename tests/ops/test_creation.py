"""Arrays from sizes and numbers, and conversions of dtype, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import case, floats, ints
from torch2mlx.errors import UnsupportedError

X = torch.randn(3, 4)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("positions", lambda x: torch.arange(x.shape[1]) + x, X),
        case("arange", lambda x: torch.arange(2, 9, 3) + x.sum().long(), X),
        case("arange of floats", lambda x: torch.arange(0.5, 2.0, 0.25) + x.sum(), X),
        case(
            "arange as float",
            lambda x: torch.arange(5, dtype=torch.float32) * x.sum(),
            X,
        ),
        case(
            "whole numbers from floats",
            lambda x: torch.arange(0.0, -8.5, -4.0, dtype=torch.int64) + x,
            ints(1),
        ),
        case(
            "as many as there would be floats",
            lambda x: torch.arange(0.0, -8.1, -4.0, dtype=torch.int32) + x,
            ints(1).int(),
        ),
        case("zeros", lambda x: x.new_zeros(x.shape[0], 2) + x[:, :2], X),
        case("ones_like", lambda x: torch.ones_like(x, dtype=torch.int64) + 1, X),
        case("zeros_like of ints", lambda x: torch.zeros_like(x), ints(1, 2)),
        case("full", lambda x: torch.full((2, 3), 7) + x.sum().long(), X),
        case("full of floats", lambda x: torch.full((x.shape[0],), 0.5), X),
        case("full_like", lambda x: torch.full_like(x, 3), X),
        case("large number", lambda x: torch.full((2,), 2**40) + x, ints(1, 2)),
        case("eye", lambda x: torch.eye(4) @ x.T, X),
        case("eye of two sizes", lambda x: torch.eye(2, 3) + x[:2, :3], X),
        case("linspace", lambda x: torch.linspace(-1, 1, 5) + x.sum(), X),
        case(
            "linspace of ints",
            lambda x: torch.linspace(0, 7, 4, dtype=torch.int64) + x,
            ints(1),
        ),
        case("logspace", lambda x: torch.logspace(0, 2, 3) + x.sum(), X),
        case(
            "logspace of ints",
            lambda x: torch.logspace(4.3, 1.2, 2, base=3, dtype=torch.int64) + x,
            ints(1),
        ),
        case("tril_indices", lambda x: x[0][torch.tril_indices(3, 3)[0]], X),
        case(
            "triu mask", lambda x: torch.ones(4, 4).triu(1).bool() & (x.sum() > -99), X
        ),
        case("number as array", lambda x: x * torch.tensor(2), X),
    ],
)
def test_created(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("float to int", lambda x: x.long(), floats(-1.9, 1.9, 0.0)),
        case("int to bool", lambda x: x.bool(), ints(0, 2, -1)),
        case("bool to int", lambda x: (x > 0).int() + (x > 1).long(), X),
        case("wraps", lambda x: x.to(torch.uint8) + 1, ints(255, 3)),
        case("half", lambda x: x.half() * 2, X),
        case("double is single", lambda x: (x.double() * 2).float(), X),
        case("type_as", lambda x, y: x.type_as(y) + y, ints(1, 2), floats(0.5, 1.5)),
        case("alias_copy", lambda x: torch.alias_copy(x) * 2, X),
        case("copies", lambda x: x.clone().contiguous().detach() + 1, X),
    ],
)
def test_converted(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, tolerance=1e-3)


def test_sizes_are_read_from_the_input() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.arange(x.shape[1]) + torch.zeros(x.shape[0], 1) + x

    run_lowered(function, (X,), (torch.randn(5, 7),))


def test_default_dtypes_are_not_written() -> None:
    graph = lowered(
        lambda x: torch.cat([x, torch.zeros(3, 4)]) + torch.arange(4),
        (X,),
        dynamic=False,
    ).graph
    created = [n for n in graph.nodes if n.target in (mx.zeros, mx.arange)]
    assert [(tuple(n.args), n.kwargs) for n in created] == [(((3, 4),), {}), ((4,), {})]


def test_unknown_dtypes_are_refused() -> None:
    for dtype in (torch.float8_e4m3fn, torch.complex32):
        with pytest.raises(UnsupportedError, match=f"MLX has no dtype for {dtype}"):
            lowered(lambda x, dtype=dtype: x.to(dtype), (X,))
