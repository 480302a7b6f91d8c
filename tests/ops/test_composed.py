"""`mx` compositions over numbers, booleans and reflected operands against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import case, floats, ints

X = floats(0.5, 1.0, 3.0)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("xlogy of a number", lambda x: torch.xlogy(2, x), X),
        case("xlogy by a number", lambda x: torch.xlogy(x, 3.5), X),
        case(
            "float_power of a number", lambda x: torch.float_power(2, x), ints(1, 2, -3)
        ),
        case("number modulo ints", lambda x: 7 % x, ints(-2, 3, 4)),
        case("number and ints", lambda x: torch.bitwise_and(6, x), ints(3, 4, 5)),
        case("number shifted", lambda x: 1 << x, ints(0, 3, 5)),
        case("special xlogy", torch.special.xlogy, X, X),
        case("sinc at zero", torch.sinc, floats(0.0, 0.5, -2.5)),
        case("isreal", torch.isreal, X),
        case("isreal of complex", torch.isreal, torch.tensor([1 + 0j, 1 + 1j])),
        case("float_power of halves", lambda x: torch.float_power(x.half(), 3), X),
        case("bits", lambda x: x.view(torch.int32), X),
    ],
)
def test_composed(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)
