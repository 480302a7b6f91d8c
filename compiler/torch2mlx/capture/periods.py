"""Conditions on one size that hold for the same remainders again and again, in the plainest form.

    4*(T // 4) == T                     ->      T % 4 == 0
    (4 - T % 4) % 4 <= 0                ->      T % 4 == 0

An integer expression `e` is followed as far as `e(T + period) == e(T) + growth` for every T: a comparison whose sides
grow alike has a period, and is known when it is known for as many sizes as that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy
from sympy.core.relational import Relational
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

LONGEST = 512  # period that is looked at


def remainder(expr: Any, holds: Callable[[int], bool]) -> Any:
    """`Eq(Mod(T, m), r)` or `Ne(Mod(T, m), r)` if a condition on one size T is that; None otherwise.

    Args:
        expr: The condition.
        holds: Evaluates it for a size.
    """
    (symbol,) = expr.free_symbols
    period = _period(expr)
    if period is None or not 1 < period <= LONGEST:
        return None
    true = [holds(size) for size in range(period, 2 * period)]
    for modulus in range(2, period + 1):
        # The shortest period; it divides the one that is known
        if period % modulus or any(true[i] != true[i % modulus] for i in range(period)):
            continue
        kept = [i for i in range(modulus) if true[i]]
        left = [i for i in range(modulus) if not true[i]]
        # Of two remainders either form fits: `T % 2 == 0` is the one of an even size
        if len(kept) == 1:
            return sympy.Eq(Mod(symbol, modulus), kept[0], evaluate=False)
        if len(left) == 1:
            return sympy.Ne(Mod(symbol, modulus), left[0], evaluate=False)
        return None
    return None


def _period(expr: Any) -> int | None:
    """With which period a condition repeats; None where that is not known."""
    if isinstance(expr, Relational):
        sides: Any = expr.args
        found = _growth(sides[0] - sides[1])
        return found[0] if found is not None and found[1] == 0 else None
    if isinstance(expr, sympy.And | sympy.Or | sympy.Not):
        periods = [_period(arg) for arg in expr.args]
        known = [p for p in periods if p is not None]
        return math.lcm(*known) if len(known) == len(periods) else None
    return None


def _growth(expr: Any) -> tuple[int, int] | None:
    """(period, by how much the expression is more after one); None where that is not known."""
    if isinstance(expr, sympy.Integer):
        return 1, 0
    if isinstance(expr, sympy.Symbol):
        return 1, 1
    parts = [_growth(arg) for arg in expr.args]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    period = math.lcm(*(p for p, _ in known))
    grown = [growth * (period // p) for p, growth in known]
    if isinstance(expr, sympy.Add):
        return period, sum(grown)
    if isinstance(expr, sympy.Mul):
        return _of_product(expr, period, grown)
    divisor = expr.args[-1]
    is_division = isinstance(expr, FloorDiv | Mod | PythonMod)
    if is_division and isinstance(divisor, sympy.Integer) and divisor > 0:
        times = int(divisor) // math.gcd(grown[0], int(divisor))
        whole = times * grown[0] // int(divisor)
        return times * period, whole if isinstance(expr, FloorDiv) else 0
    if isinstance(expr, sympy.Max | sympy.Min) and not any(grown):
        return period, 0
    return None


def _of_product(expr: Any, period: int, grown: list[int]) -> tuple[int, int] | None:
    if not any(grown):
        return period, 0
    growing = [i for i, growth in enumerate(grown) if growth]
    others = [arg for i, arg in enumerate(expr.args) if i != growing[0]]
    if len(growing) == 1 and all(isinstance(arg, sympy.Integer) for arg in others):
        return period, grown[growing[0]] * math.prod(map(int, others))
    return None
