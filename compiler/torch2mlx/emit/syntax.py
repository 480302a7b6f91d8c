"""Python syntax trees: the few shapes that generated code is made of, and their text.

Code is built as `ast` nodes, never as strings: a name cannot inject anything and precedence is Python's
own. `text` prints a tree as people write it.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Iterable
from typing import Any

import mlx.core


def name(identifier: str) -> ast.expr:
    """`identifier`, or a dotted name such as `mx.fast.rms_norm`."""
    first, *rest = identifier.split(".")
    node: ast.expr = ast.Name(first)
    for part in rest:
        node = ast.Attribute(node, part)
    return node


def call(
    function: ast.expr | str, args: Iterable[ast.expr] = (), **kwargs: ast.expr
) -> ast.Call:
    """`function(*args, **kwargs)`."""
    target = name(function) if isinstance(function, str) else function
    return ast.Call(target, list(args), [ast.keyword(k, v) for k, v in kwargs.items()])


def method(x: ast.expr, attribute: str, args: Iterable[ast.expr] = ()) -> ast.Call:
    """`x.attribute(*args)`."""
    return call(ast.Attribute(x, attribute), args)


def assign(targets: list[ast.expr], value: ast.expr) -> ast.stmt:
    """`target = value`, or `a, b = value`."""
    target = targets[0] if len(targets) == 1 else ast.Tuple(targets)
    return ast.Assign([target], value, lineno=0)


def literal(value: Any) -> ast.expr:
    """A constant: number, string, dtype, or a list, tuple or slice of these.

    Raises:
        TypeError: `value` has no literal.
    """
    if isinstance(value, mlx.core.Dtype):
        return name(f"mx.{dtype_name(value)}")
    if isinstance(value, tuple | list):
        items = [literal(item) for item in value]
        return ast.Tuple(items) if isinstance(value, tuple) else ast.List(items)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    if (
        isinstance(value, complex)
        or value is None
        or isinstance(value, bool | int | str)
    ):
        return ast.Constant(value)
    if isinstance(value, mlx.core.Device | mlx.core.DeviceType):
        kind = value.type if isinstance(value, mlx.core.Device) else value
        return name("mx.cpu" if kind == mlx.core.cpu else "mx.gpu")
    if value is Ellipsis:
        return ast.Constant(value)
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return ast.Slice(*(None if p is None else literal(p) for p in parts))
    raise TypeError(f"{value!r} has no literal")


def dtype_name(dtype: mlx.core.Dtype) -> str:
    """Name of a dtype in `mlx.core`, e.g. `bool_`."""
    short = str(dtype).rpartition(".")[2]
    return "bool_" if short == "bool" else short


def _float(value: float) -> ast.expr:
    if math.isnan(value):
        return name("mx.nan")
    if math.isinf(value):
        return name("mx.inf") if value > 0 else ast.UnaryOp(ast.USub(), name("mx.inf"))
    if math.copysign(1, value) < 0:
        return ast.UnaryOp(ast.USub(), _float(-value))
    root = _inverse_root(value)
    if root is not None:
        exponent = ast.UnaryOp(ast.USub(), ast.Constant(0.5))
        return ast.BinOp(ast.Constant(root), ast.Pow(), exponent)
    return ast.Constant(value)


def _inverse_root(value: float) -> int | None:
    """The integer n with n**-0.5 == value, for values that do not look better as they are."""
    if not 0 < value < 1 or len(repr(value)) <= 6:
        return None
    number = round(value**-2)
    return number if number**-0.5 == value else None


def text(node: ast.AST) -> str:
    """The source text of an expression or statement."""
    value = node.value if isinstance(node, ast.Return) else None
    if isinstance(value, ast.Tuple) and len(value.elts) > 1:
        return f"return {', '.join(text(item) for item in value.elts)}"
    return tidy(ast.unparse(ast.fix_missing_locations(node)))


def tidy(source: str) -> str:
    """Numbers as people write them: `1e-5` for `1e-05`, `n**-0.5` for `n ** (-0.5)`.

    >>> tidy("x = f(1e-05) * 8 ** (-0.5)")
    'x = f(1e-5) * 8 ** -0.5'
    """
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    for i, token in enumerate(tokens):
        if token.type == tokenize.NUMBER:
            short = re.sub(r"(?i)e([+-]?)0+(?=\d)", r"e\1", token.string)
            if short != token.string:
                edits.append((token.start, token.end, short))
        if _is_negative_power(tokens[i : i + 5]):
            edits.append((tokens[i + 1].start, tokens[i + 1].end, ""))
            edits.append((tokens[i + 4].start, tokens[i + 4].end, ""))
    lines = source.splitlines(keepends=True)
    for (row, start), (_, end), new in sorted(edits, reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + new + line[end:]
    return "".join(lines)


def _is_negative_power(tokens: list[tokenize.TokenInfo]) -> bool:
    """Whether the tokens are `** ( - number )`."""
    marks = [token.string for token in tokens]
    return (
        len(marks) == 5
        and [*marks[:3], marks[4]] == ["**", "(", "-", ")"]
        and tokens[3].type == tokenize.NUMBER
    )
