"""Views by strides, and the operators that copy what a view shares, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import case

aten = torch.ops.aten

X = torch.randn(4, 6)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("as_strided", lambda x: x.as_strided((2, 3), (1, 4)), X),
        case("with an offset", lambda x: x.as_strided((2, 2), (6, 2), 3), X),
        case("of windows", lambda x: x.as_strided((4, 4, 3), (6, 1, 1)), X),
        case("of a part", lambda x: (x * 2)[2:].as_strided((2, 2), (6, 1)), X),
        case("of a transpose", lambda x: (x * 2).T.as_strided((2, 2), (3, 1), 2), X),
        case("without axes", lambda x: x.as_strided((), (), 5), X),
        case("of nothing", lambda x: x.as_strided((0, 2), (1, 1)), X),
        case("copy", lambda x: aten.as_strided_copy(x, (2, 2), (1, 2)), X),
        case(
            "scatter",
            lambda x, y: x.as_strided_scatter(y, (2, 3), (6, 2), 1),
            X,
            torch.randn(2, 3),
        ),
        case("alias", lambda x: aten.alias_copy(x) + 1, X),
        case("narrow", lambda x: aten.narrow_copy(x, 1, 2, 3), X),
        case("unbind", lambda x: tuple(aten.unbind_copy(x, 1)), X),
        case("split", lambda x: tuple(aten.split_copy(x, 4, 1)), X),
        case("split sizes", lambda x: tuple(aten.split_with_sizes_copy(x, [1, 3])), X),
        case("unfold", lambda x: aten.unfold_copy(x, 1, 3, 2), X),
        case("t", lambda x: aten.t_copy(x), X),
        case("squeeze", lambda x: aten.squeeze_copy(x[:, None, :, None]), X),
        case("squeeze one", lambda x: aten.squeeze_copy(x[:, None], 1), X),
        case("squeeze some", lambda x: aten.squeeze_copy(x[:, None], [0, 1]), X),
    ],
)
def test_strided(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_sizes_may_vary() -> None:
    run_lowered(
        lambda x: x.as_strided((x.shape[0], 3), (x.shape[1], 1)),
        (X,),
        (torch.randn(5, 8),),
    )
