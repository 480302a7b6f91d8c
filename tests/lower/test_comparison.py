"""What is known of a comparison of sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, Max

from torch2mlx.lower.comparison import holds

N, M = sympy.symbols("s0 s1", integer=True, positive=True)


@pytest.mark.parametrize(
    ("operation", "left", "right", "found"),
    [
        (operator.eq, N, 1, False),  # torch.export promises sizes of at least 2
        (operator.ge, N, 2, True),
        (operator.eq, N, 3, None),
        (operator.ne, N, N, False),
        (operator.lt, N, N + 1, True),
        (operator.lt, N, M, None),
        (operator.eq, Max(7, FloorDiv(N, 32)), 1, False),
        (operator.ge, Max(7, FloorDiv(N, 32)), 7, True),
        (operator.eq, Max(7, FloorDiv(N, 32)), 7, None),
        (operator.gt, sympy.Max(3, N) + sympy.Max(4, M), 6, True),
        (operator.eq, sympy.Max(N, M), 1, None),
    ],
)
def test_holds(
    operation: Callable[[Any, Any], Any], left: Any, right: Any, found: bool | None
) -> None:
    assert holds(operation, sympy.sympify(left), sympy.sympify(right)) is found
