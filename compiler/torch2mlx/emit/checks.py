"""The statements that refuse sizes for which the generated code is not the model."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.conditions import printed
from torch2mlx.emit import syntax


@dataclass(frozen=True)
class Checked:
    """An input whose sizes are checked.

    Attributes:
        label: Its name in messages.
        x: How it is read.
        node: The value.
        sizes: Its sizes as they are stored, in letters and numbers.
    """

    label: str
    x: ast.expr
    node: torch.fx.Node
    sizes: list[str]

    @property
    def shape(self) -> ast.expr:
        """Its shape."""
        return ast.Attribute(self.x, "shape")

    def axes(self, captured: Captured) -> Iterator[tuple[Any, int]]:
        """(Symbol, axis as it is stored) of each size that varies."""
        shape = self.node.meta["val"].shape
        for axis, natural in enumerate(self.node.meta.get("perm") or range(len(shape))):
            if isinstance(shape[natural], torch.SymInt):
                yield captured.expr(shape[natural]), axis


def check_bounds(
    item: Checked, bounded: list[tuple[int, str, ast.expr]]
) -> list[ast.stmt]:
    """Refuse sizes for which the code would be wrong.

    MLX reads past the end of a table that is too short, and code for several rows may not fit one.

    Args:
        item: The input.
        bounded: [(axis, "<=" or ">=", size)].
    """
    statements: list[ast.stmt] = []
    for axis in dict.fromkeys(axis for axis, _, _ in bounded):
        limits = {sign: limit for a, sign, limit in bounded if a == axis}
        size = ast.Subscript(item.shape, ast.Constant(axis))
        letter = item.sizes[axis]
        if len(limits) == 2:
            low, high = limits[">="], limits["<="]
            inside = ast.Compare(low, [ast.LtE(), ast.LtE()], [size, high])
            test: ast.expr = ast.UnaryOp(ast.Not(), inside)
            wanted = [*_shown(low), ast.Constant(f" <= {letter} <= "), *_shown(high)]
        else:
            ((sign, limit),) = limits.items()
            beyond: ast.cmpop = ast.Gt() if sign == "<=" else ast.Lt()
            test = ast.Compare(size, [beyond], [limit])
            wanted = [ast.Constant(f"{letter} {sign} "), *_shown(limit)]
        message = [ast.Constant(f"{item.label} must have "), *wanted]
        if all(isinstance(limit, ast.Constant) for limit in limits.values()):
            message += [ast.Constant(", not "), ast.FormattedValue(size, -1)]
        error = ast.Raise(syntax.call("ValueError", [ast.JoinedStr(message)]))
        statements.append(ast.If(test, [error], []))
    return statements


def _shown(limit: ast.expr) -> list[ast.expr]:
    """A limit as a part of a message."""
    if isinstance(limit, ast.Constant):
        return [ast.Constant(str(limit.value))]
    return [ast.FormattedValue(limit, -1)]


def check_fixed(item: Checked, enforced: set[tuple[str, int]]) -> list[ast.stmt]:
    """Refuse other sizes than the fixed ones.

    Args:
        item: The input.
        enforced: (Input, axis) of the sizes that MLX itself refuses.
    """
    sizes = item.sizes
    rank = len(sizes)
    order = item.node.meta.get("perm") or range(rank)
    fixed = [
        axis
        for axis, natural in enumerate(order)
        if sizes[axis].isdigit() and (str(item.node.target), natural) not in enforced
    ]
    if not fixed:
        return []
    shape = item.shape
    wanted: ast.expr = ast.Tuple([ast.Constant(int(sizes[axis])) for axis in fixed])
    if len(fixed) == 1:
        found: ast.expr = ast.Subscript(shape, ast.Constant(fixed[0]))
        wanted = ast.Constant(int(sizes[fixed[0]]))
    elif fixed == list(range(fixed[0], fixed[-1] + 1)):
        bounds = ast.Slice(
            *(
                None if b in (0, rank) else ast.Constant(b)
                for b in (fixed[0], fixed[-1] + 1)
            )
        )
        found = shape if len(fixed) == rank else ast.Subscript(shape, bounds)
    else:
        found = ast.Tuple([ast.Subscript(shape, ast.Constant(axis)) for axis in fixed])
    text = ast.Constant(f"{item.label} must be [{', '.join(sizes)}], not ")
    message = ast.JoinedStr(
        [text, ast.FormattedValue(syntax.call("list", [shape]), -1)]
    )
    error = ast.Raise(syntax.call("ValueError", [message]))
    return [ast.If(ast.Compare(found, [ast.NotEq()], [wanted]), [error], [])]


def check_conditions(items: list[Checked], captured: Captured) -> list[ast.stmt]:
    """Refuse sizes for which the model would take another branch.

    Args:
        items: The inputs.
        captured: Its conditions are checked.
    """
    found: list[ast.stmt] = []
    for symbol in captured.equal:
        places = [(i, a) for i in items for s, a in i.axes(captured) if s == symbol]
        sizes: list[ast.expr] = [
            ast.Subscript(i.shape, ast.Constant(a)) for i, a in places
        ]
        if len(places) > 1:
            unlike: ast.expr = ast.Compare(sizes[0], [ast.NotEq()], sizes[1:])
            if len(places) > 2:
                equal = ast.Compare(sizes[0], [ast.Eq()] * (len(sizes) - 1), sizes[1:])
                unlike = ast.UnaryOp(ast.Not(), equal)
            found.append(ast.If(unlike, [_refusal([item for item, _ in places])], []))
    for condition in captured.conditions:
        owners = _owners(items, captured, condition.free_symbols)
        if owners is None:
            continue
        reads: dict[Any, ast.expr] = {}
        letters: dict[Any, ast.expr] = {}
        for symbol, (item, axis) in owners.items():
            reads[symbol] = ast.Subscript(item.shape, ast.Constant(axis))
            letters[symbol] = syntax.name(item.sizes[axis])
        test = printed(sympy.Not(condition), reads)
        wanted = printed(condition, letters)
        assert test is not None
        assert wanted is not None
        inputs = [item for item, _ in owners.values()]
        found.append(ast.If(test, [_refusal(inputs, ast.unparse(wanted))], []))
    return found


def _owners(
    items: list[Checked], captured: Captured, symbols: set[Any]
) -> dict[Any, tuple[Checked, int]] | None:
    """Symbol -> the first input that has this size, and the axis; None where one has none."""
    owners: dict[Any, tuple[Checked, int]] = {}
    for item in items:
        for symbol, axis in item.axes(captured):
            if symbol in symbols:
                owners.setdefault(symbol, (item, axis))
    return owners if owners.keys() == symbols else None


def _refusal(inputs: list[Checked], wanted: str = "") -> ast.stmt:
    """`x must be [B, H, W, 3] with H % 4 == 0, not [2, 50, 52, 3]`."""
    items = list({item.label: item for item in inputs}.values())
    texts = [f"{item.label} must be [{', '.join(item.sizes)}]" for item in items]
    condition = f" with {wanted}" if wanted else ""
    parts: list[ast.expr] = [ast.Constant(f"{' and '.join(texts)}{condition}, not ")]
    for position, item in enumerate(items):
        if position:
            parts.append(ast.Constant(" and "))
        parts.append(ast.FormattedValue(syntax.call("list", [item.shape]), -1))
    return ast.Raise(syntax.call("ValueError", [ast.JoinedStr(parts)]))
