"""What is known of a comparison of sizes, before any input is seen."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sympy
from torch.utils._sympy.functions import Max

from torch2mlx.capture.values import is_read


def holds(
    operation: Callable[[Any, Any], Any], left: sympy.Expr, right: sympy.Expr
) -> bool | None:
    """Whether a comparison holds for every input that the capture allows; None where it depends.

    torch.export promises sizes of at least 2, except for those that it reads from values.
    """
    large: Any = {
        s: sympy.Symbol(f"{s}_", integer=True, nonnegative=True) + 2
        for s in left.free_symbols | right.free_symbols
        if not is_read(s)
    }
    left, right = (_without_maxima(side.subs(large)) for side in (left, right))
    result = operation(left, right)
    if operation in (operator.eq, operator.ne):
        result = sympy.simplify(sympy.Eq(left, right))
        if operation is operator.ne:
            result = sympy.Not(result)
    if result in (True, sympy.true):
        return True
    return False if result in (False, sympy.false) else None


def _without_maxima(expr: sympy.Expr) -> sympy.Expr:
    """`Max(7, size)` as 7 and something that is not negative."""
    known: dict[Any, Any] = {}
    for maximum in expr.atoms(sympy.Max, Max):
        numbers = [int(n) for n in maximum.args if isinstance(n, sympy.Integer)]
        if numbers:
            more = sympy.Symbol(f"more{len(known)}", integer=True, nonnegative=True)
            known[maximum] = max(numbers) + more
    return expr.subs(known)
