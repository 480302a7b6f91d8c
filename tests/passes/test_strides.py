"""Strided views of what owns the memory, and of what they cannot be taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import check, ops
from torch2mlx.errors import UnsupportedError
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.strides import strides

Function = Callable[..., Any]

as_strided = torch.ops.aten.as_strided.default

X = torch.randn(4, 6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * 2)[1:].as_strided((2, 2), (6, 1), 8),
        lambda x: (x * 2).flatten()[6:].as_strided((2, 2), (6, 1), 3),
        lambda x: (x * 2).T.as_strided((2, 2), (6, 1), 3),
        lambda x: (x * 2).split(2)[1].as_strided((2, 2), (6, 1), 3),
        lambda x: (x * 2)[:, 1:3].as_strided((2, 2), (2, 1)),
        lambda x: (x * 2)[:1, 2:].as_strided((2, 2), (6, 1)),
    ],
)
def test_views_are_of_the_owner(function: Function) -> None:
    captured = check((strides,), function, (X,))
    (call,) = [n for n in captured.graph.nodes if n.target is as_strided]
    assert call.args[0].target is torch.ops.aten.mul.Tensor


def test_a_view_of_all_stays() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * 2)[2:].as_strided((2, 2), (6, 1))

    captured = check((strides,), function, (X,))
    (call,) = [n for n in captured.graph.nodes if n.target is as_strided]
    assert call.args[0].target is torch.ops.aten.slice.Tensor


def test_in_place() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.as_strided_((2, 2), (6, 1), 1)
        return y * 2

    captured = check((strides, functionalise), function, (X,))
    assert ops(captured)["as_strided"] == 1


def partial_scatter(x: torch.Tensor) -> torch.Tensor:
    return x.flatten()[1:].as_strided_scatter(x[:2, :2], (2, 2), (2, 1), 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x[None].to(memory_format=torch.channels_last).as_strided((2,), (2,))


@pytest.mark.parametrize(
    ("function", "shape", "hint"),
    [
        (
            lambda x: (x.T + 1).as_strided((2, 2), (2, 1)),
            (4, 6),
            "not stored row by row",
        ),
        (channels_last, (3, 4, 5), "not stored row by row"),
        (partial_scatter, (4, 6), "lies inside of other memory"),
        (
            lambda x: (x + 1)[1:, :3].as_strided((2, 2), (6, 1)),
            (4, 6),
            "lies in memory varies",
        ),
    ],
)
def test_refused(function: Function, shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(UnsupportedError, match=hint):
        check((strides,), function, (torch.randn(shape),))
