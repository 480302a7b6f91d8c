"""The sizes for which a captured graph is the model: it has one side of each branch that compares sizes.

if x.shape[2] > 40: ...          ->     minima[H] = 41
if x.shape[2] % 4 == 0: ...      ->     conditions = [H % 4 == 0]
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import sympy
import torch
import torch.fx
from sympy.core.relational import Relational
from torch.utils._sympy.functions import Mod, PythonMod
from torch.utils._sympy.printers import PythonPrinter

from torch2mlx.capture.captured import Captured
from torch2mlx.capture.failure import is_library
from torch2mlx.capture.periods import remainder
from torch2mlx.capture.provenance import Frame
from torch2mlx.capture.sizes import place_of

# A condition of more characters is replaced by the sizes around the example's that satisfy it
LONGEST = 60
SCANNED = 512
CALLS = {"max", "min"}
COMPARED = "the model compares sizes at"
# Where PyTorch tries one way after another: a comparison there is no condition
_CHOICES = tuple(
    os.path.join(os.path.dirname(torch.__file__), part, "")
    for part in ("_refs", "_prims", "_prims_common")
)

_REFS = os.path.join(_CHOICES[0], "__init__.py")


def note_conditions(captured: Captured) -> None:
    """Note for which sizes the graph is the model.

    Args:
        captured: Its `minima`, `bounds`, `conditions`, `equal`, `unified` and `notes` are added to.
    """
    known = set(captured.hints)
    conditions: dict[Any, str] = {}
    for guard, frame in guards(captured.graph):
        by_author = is_author(frame)
        if by_author and _is_equality(guard):
            _note_equal(captured, guard, frame)
        expr: Any = guard.subs(captured.unified)
        if expr.free_symbols and expr.free_symbols <= known:
            if by_author:
                conditions[expr] = f"{COMPARED} {frame}"
            elif _is_check(expr, frame):
                conditions.setdefault(expr, "PyTorch refuses other sizes")
            elif _is_merged(expr, frame):
                conditions.setdefault(expr, "an axis of size 1 is merged with another")
    # The plainest first: others may follow from them
    for expr in sorted(conditions, key=partial(_rank, captured)):
        why = conditions[expr]
        what = _noted(captured, expr, why.startswith(COMPARED))
        if what:
            captured.notes.append(f"{what}: {why}")
    _fix(captured)


def _rank(captured: Captured, expr: Any) -> tuple[int, bool]:
    count = len(expr.free_symbols)
    return count, count == 1 and not _is_range(captured, expr)


def _is_equality(guard: Any) -> bool:
    sides = guard.args if isinstance(guard, sympy.Eq) else ()
    return bool(sides) and all(isinstance(side, sympy.Symbol) for side in sides)


def _note_equal(captured: Captured, guard: Any, frame: Frame) -> None:
    """Two sizes that the author found equal: the inputs have one symbol for both."""
    for symbol in (captured.expr(side) for side in guard.args):
        if isinstance(symbol, sympy.Symbol) and symbol in captured.hints:
            if symbol not in captured.equal:
                captured.equal.append(symbol)
                what = f"the sizes equal to `{read_size(captured, symbol)}` must be so"
                captured.notes.append(f"{what}: {COMPARED} {frame}")
            return


def guards(graph: torch.fx.Graph) -> Iterator[tuple[Any, Frame]]:
    """What torch.export found of the input's sizes, and where."""
    for node in graph.nodes:
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, torch.Tensor) else ()
        for size in sizes if node.op == "placeholder" else ():
            if isinstance(size, torch.SymInt):
                for guard in size.node.shape_env.guards:
                    at = guard.sloc.framework_loc
                    if at is not None and not isinstance(at, str):
                        yield guard.expr, Frame(at.filename, at.lineno or 0, at.name)
                return


def is_author(frame: Frame) -> bool:
    typed = frame.file.startswith("<") and not frame.file.startswith("<frozen")
    return typed or not is_library(frame.file)


def _is_check(expr: Any, frame: Frame) -> bool:
    """Whether PyTorch itself refuses sizes for which this does not hold: a linear layer's, say."""
    return (
        isinstance(expr, sympy.Eq)
        and isinstance(expr.lhs, sympy.Expr)
        and not isinstance(expr.lhs, sympy.Symbol | Mod | PythonMod)
        and isinstance(expr.rhs, sympy.Integer)
        and int(expr.rhs) > 1
        and not frame.file.startswith(_CHOICES)
    )


def _is_merged(expr: Any, frame: Frame) -> bool:
    """Whether a reshape took an axis to have size 1, and gave its result another shape for that."""
    return isinstance(expr, sympy.Eq) and expr.rhs == 1 and frame.file == _REFS


def _noted(captured: Captured, expr: Any, is_branch: bool) -> str:
    """Add a condition to what is known; what it says, "" for nothing new."""
    symbols = sorted(expr.free_symbols, key=list(captured.hints).index)
    holds = as_function(expr, symbols)
    hints = [captured.hints[symbol] for symbol in symbols]
    ranges = [_range(holds, hints, axis) for axis in range(len(symbols))]
    if _follows(captured, symbols, holds):
        return ""
    is_range = len(symbols) == 1 and _is_range(captured, expr)
    found = text(captured, expr)
    if is_branch and not is_range and found and _is_short(expr):
        if any(text(captured, known) == found for known in captured.conditions):
            return ""
        captured.conditions.append(expr)
        return f"`{found}`"
    sizes = [range(low, (high or low) + 1) for low, high in ranges]
    if len(symbols) > 1 and not _all_hold(holds, sizes):
        ranges = [(hint, hint) for hint in hints]
    narrowed = [
        _narrow(captured, symbol, *limits)
        for symbol, limits in zip(symbols, ranges, strict=True)
    ]
    return " and ".join(filter(None, narrowed))


def text(captured: Captured, expr: Any) -> str:
    """A condition as it is read, `x.shape[0] > 1`; "" where it is no plain comparison."""
    names = {
        symbol: ast.Name(read_size(captured, symbol)) for symbol in expr.free_symbols
    }
    tree = printed(expr, names)
    return "" if tree is None else ast.unparse(tree)


def _follows(
    captured: Captured, symbols: list[Any], holds: Callable[..., bool]
) -> bool:
    """Whether what is known of the sizes implies a condition."""
    bounds = [captured.bounds.get(symbol) for symbol in symbols]
    lows = [captured.minima.get(symbol, 1) for symbol in symbols]
    sizes = [
        range(low, low if high is None else high + 1)
        for low, high in zip(lows, bounds, strict=True)
    ]
    return None not in bounds and _all_hold(holds, sizes)


def _all_hold(holds: Callable[..., bool], sizes: list[range]) -> bool:
    if math.prod(map(len, sizes)) > SCANNED**2:
        return False
    return all(holds(*each) for each in itertools.product(*sizes))


def _is_short(expr: Any) -> bool:
    text = printed(expr, {symbol: ast.Name("N") for symbol in expr.free_symbols})
    return text is not None and len(ast.unparse(text)) <= LONGEST


def _is_range(captured: Captured, expr: Any) -> bool:
    """Whether a condition on one size holds in one range of it, and nowhere else."""
    (symbol,) = expr.free_symbols
    hint = captured.hints[symbol]
    holds = as_function(expr, [symbol])
    low, high = _range(holds, [hint], 0)
    end = _end(hint)
    return not any(map(holds, (*range(1, low), *range((high or end) + 1, end))))


def as_function(expr: Any, symbols: list[sympy.Symbol]) -> Callable[..., bool]:
    """Whether a condition holds for sizes, in the symbols' order; where it divides by zero, it does not."""
    code = compile(PythonPrinter().doprint(expr), "condition", "eval")
    names = [str(symbol) for symbol in symbols]

    def holds(*sizes: int) -> bool:
        values = dict(zip(names, sizes, strict=True))
        try:
            return bool(eval(code, {"math": math, "torch": torch}, values))
        except ArithmeticError:
            return False

    return holds


def _range(
    holds: Callable[..., bool], hints: list[int], axis: int
) -> tuple[int, int | None]:
    """The values of one size around the example's for which a condition holds."""

    def at(size: int) -> bool:
        return holds(*hints[:axis], size, *hints[axis + 1 :])

    low = high = hints[axis]
    end = _end(high)
    while low > 1 and at(low - 1):
        low -= 1
    while high < end and at(high + 1):
        high += 1
    return low, None if high == end else high


def _end(hint: int) -> int:
    return max(4 * hint, SCANNED)


def _narrow(captured: Captured, symbol: Any, low: int, high: int | None) -> str:
    """Narrow the sizes that a symbol may have; what is new, in words."""
    old = captured.minima.get(symbol, 1), captured.bounds.get(symbol, math.inf)
    found = max(old[0], low), min(old[1], math.inf if high is None else high)
    if found == old:
        return ""
    if found[0] > 1:
        captured.minima[symbol] = found[0]
    if found[1] != math.inf:
        captured.bounds[symbol] = int(found[1])
    name = f"`{read_size(captured, symbol)}`"
    if found[0] == found[1]:
        return f"{name} must be {found[0]}"
    if found[1] == math.inf:
        return f"{name} must be at least {found[0]}"
    return f"{name} must be {found[0]} to {found[1]}"


def _fix(captured: Captured) -> None:
    """Sizes of which one value is left are fixed."""
    fixed: dict[Any, Any] = {
        symbol: sympy.Integer(size)
        for symbol, size in captured.minima.items()
        if captured.bounds.get(symbol) == size == captured.hints[symbol]
    }
    if not fixed:
        return
    for symbol in fixed:
        del captured.minima[symbol], captured.bounds[symbol]
    unified: dict[Any, Any] = captured.unified
    for symbol, other in unified.items():
        unified[symbol] = other.subs(fixed)
    unified.update(fixed)
    conditions: list[Any] = [c.subs(fixed) for c in captured.conditions]
    captured.conditions[:] = [c for c in conditions if c not in (True, sympy.true)]


def printed(expr: Any, names: Mapping[sympy.Symbol, ast.expr]) -> ast.expr | None:
    """A condition as Python code that imports nothing; None where there is none.

    Args:
        expr: The condition.
        names: Symbol -> how its size is read.
    """
    tree = ast.parse(PythonPrinter().doprint(_plain(expr)), mode="eval").body
    by_name = {str(symbol): node for symbol, node in names.items()}
    allowed = {*by_name, *CALLS}
    if any(isinstance(n, ast.Attribute) for n in ast.walk(tree)) or not all(
        n.id in allowed for n in ast.walk(tree) if isinstance(n, ast.Name)
    ):
        return None

    class Named(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return by_name.get(node.id, node)

        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            """`x - 2` for `-2 + x`."""
            self.generic_visit(node)
            left, is_sum = node.left, isinstance(node.op, ast.Add)
            if is_sum and isinstance(left, ast.Constant):
                return ast.BinOp(node.right, ast.Add(), left)
            if is_sum and isinstance(left, ast.UnaryOp):
                return ast.BinOp(node.right, ast.Sub(), left.operand)
            return node

    return Named().visit(tree)


def _plain(expr: Any) -> Any:
    """The same condition as one would write it: `T % 4 == 0`, and no negative terms."""
    symbols = list(expr.free_symbols)
    if len(symbols) == 1:
        found = remainder(expr, as_function(expr, symbols))
        if found is not None:
            return found
    is_integer = isinstance(expr, Relational) and not expr.atoms(sympy.Float)
    if not is_integer or not any(map(_negative_terms, expr.args)):
        return expr
    sides: Any = expr.args
    difference: Any = sympy.expand(sides[0] - sides[1])
    negative: Any = sympy.Add(*_negative_terms(difference))
    found: Any = expr.func(difference - negative, -negative, evaluate=False)
    return found.reversed if found.lhs.is_number else found


def _negative_terms(expr: Any) -> list[Any]:
    """The terms of a sum that have a minus before them."""
    terms = sympy.Add.make_args(expr)
    return [term for term in terms if term.as_coeff_Mul()[0].is_negative]


def read_size(captured: Captured, symbol: sympy.Symbol) -> str:
    """How the size of an input is read: `x.shape[2]`."""
    return place_of(captured, symbol) or re.sub(r"\W", "_", str(symbol))
