"""How conditions on sizes are printed: in the plainest form, and never another condition."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

from torch2mlx.capture.conditions import printed
from torch2mlx.capture.periods import remainder

symbols: Any = sympy.symbols("T L", integer=True, positive=True)
T, L = symbols
mod: Any = Mod
python_mod: Any = PythonMod
floor_div: Any = FloorDiv
either: Any = sympy.Or
PLAIN: list[tuple[Any, str]] = [
    (sympy.Le(mod(4 - mod(T, 4), 4), 0), "T % 4 == 0"),
    (sympy.Gt(mod(4 - mod(T, 4), 4), 0), "T % 4 != 0"),
    (sympy.Eq(4 * floor_div(T, 4), T), "T % 4 == 0"),
    (either(sympy.Eq(mod(T, 8), 0), sympy.Eq(mod(T, 8), 4)), "T % 4 == 0"),
    (sympy.Ne(mod(3 * T + 1, 6), 4), "T % 2 == 0"),
    (sympy.Eq(mod(T, 2), 1), "T % 2 == 1"),
    (sympy.Eq(python_mod(-T, 4), 1), "T % 4 == 3"),
    (sympy.Eq(mod(floor_div(T, 2), 2), 0), "T // 2 % 2 == 0"),
    (sympy.Eq(mod(T**2, 4), 0), "T * T % 4 == 0"),
    (sympy.Le(L - T, 0), "L <= T"),
    (sympy.Le(4 - mod(T, 4), L), "L + T % 4 >= 4"),
    (sympy.Lt(-T, -3), "T > 3"),
    (sympy.Eq(T - 2, 5), "T == 7"),
    (sympy.Eq(floor_div(T - 1, 2) + 1, 4), "(T - 1) // 2 + 1 == 4"),
]


@pytest.mark.parametrize(("condition", "text"), PLAIN)
def test_plainest_form(condition: Any, text: str) -> None:
    found = printed(condition, {T: ast.Name("T"), L: ast.Name("L")})
    assert found is not None
    assert ast.unparse(found) == text
    code = compile(text, "condition", "eval")
    for t in range(1, 60):
        for size in range(1, 9):
            expected = bool(condition.subs({T: t, L: size}))
            assert eval(code, {"T": t, "L": size}) is expected


@pytest.mark.parametrize(
    "condition",
    [T > 3, sympy.Eq(mod(T, 4), T), sympy.Eq(floor_div(T, 4), 2), sympy.Eq(T**2, 4)],
)
def test_no_remainder(condition: Any) -> None:
    """What holds below some size only has no period, however many sizes are tried."""
    assert remainder(condition, lambda t: bool(condition.subs(T, t))) is None
