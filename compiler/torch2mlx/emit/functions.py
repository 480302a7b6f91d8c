"""How each function of a lowered graph is written: operators, methods, `mx.` calls.

operator.add(x, y)              ->  x + y
mx.reshape(x, (2, 3))           ->  x.reshape(2, 3)
mx.transpose(x, (0, 2, 1, 3))   ->  x.swapaxes(1, 2)
mx.mean(x, axis=(1, 2))         ->  mx.mean(x, axis=(1, 2))
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from torch2mlx.emit import syntax
from torch2mlx.ir import intrinsics
from torch2mlx.lower.stubs import Stub
from torch2mlx.ops.axes import FULL

BINARY: dict[Any, ast.operator] = {
    operator.add: ast.Add(),
    operator.sub: ast.Sub(),
    operator.mul: ast.Mult(),
    operator.truediv: ast.Div(),
    operator.floordiv: ast.FloorDiv(),
    operator.mod: ast.Mod(),
    operator.pow: ast.Pow(),
    operator.matmul: ast.MatMult(),
    operator.and_: ast.BitAnd(),
    operator.or_: ast.BitOr(),
    operator.xor: ast.BitXor(),
    operator.lshift: ast.LShift(),
    operator.rshift: ast.RShift(),
    mx.add: ast.Add(),
    mx.subtract: ast.Sub(),
    mx.multiply: ast.Mult(),
    mx.divide: ast.Div(),
    mx.matmul: ast.MatMult(),
}
UNARY: dict[Any, ast.unaryop] = {
    operator.neg: ast.USub(),
    operator.pos: ast.UAdd(),
    operator.invert: ast.Invert(),
    mx.negative: ast.USub(),
}
COMPARE: dict[Any, ast.cmpop] = {
    operator.eq: ast.Eq(),
    operator.ne: ast.NotEq(),
    operator.lt: ast.Lt(),
    operator.le: ast.LtE(),
    operator.gt: ast.Gt(),
    operator.ge: ast.GtE(),
}
# Shape work is written as methods, everything else as `mx.` functions
METHODS = {mx.squeeze: "squeeze", mx.moveaxis: "moveaxis", mx.swapaxes: "swapaxes"}
AT = {function: name for name, function in intrinsics.AT.items()}

Write = Callable[[Any], ast.expr]


def expression(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], write: Write
) -> ast.expr:
    """The expression that calls `target`.

    Args:
        target: A function of a lowered graph.
        args: Its operands.
        kwargs: Its keyword operands.
        write: Gives the expression of an operand.
    """
    if not kwargs:
        special = _special(target, args, write)
        if special is not None:
            return special
    written = [write(arg) for arg in args]
    return syntax.call(
        function_name(target), written, **{k: write(v) for k, v in kwargs.items()}
    )


def _special(target: Any, args: tuple[Any, ...], write: Write) -> ast.expr | None:
    """What is written otherwise than as `function(arguments)`."""
    if target in BINARY and len(args) == 2:
        return ast.BinOp(write(args[0]), BINARY[target], write(args[1]))
    if target in UNARY and len(args) == 1:
        return ast.UnaryOp(UNARY[target], write(args[0]))
    if target in COMPARE and len(args) == 2:
        return ast.Compare(write(args[0]), [COMPARE[target]], [write(args[1])])
    if target is operator.getitem:
        return ast.Subscript(write(args[0]), index(args[1], write))
    if target is intrinsics.dim:
        return ast.Subscript(ast.Attribute(write(args[0]), "shape"), write(args[1]))
    if target is intrinsics.item:
        return syntax.method(write(args[0]), "item")
    if target is intrinsics.astype:
        return syntax.method(write(args[0]), "astype", [write(args[1])])
    if target is intrinsics.as_linear:
        return _as_linear(write(args[0]), write(args[1]))
    if target in AT:
        place = ast.Subscript(
            ast.Attribute(write(args[0]), "at"), index(args[1], write)
        )
        return syntax.method(place, AT[target], [write(args[2])])
    if target is mx.reshape and len(args) == 2:
        return _reshape(args, write)
    if target is mx.transpose:
        return _transpose(args, write)
    if target is mx.flatten:
        return syntax.method(write(args[0]), "flatten", [write(a) for a in args[1:]])
    if target in METHODS:
        return syntax.method(
            write(args[0]), METHODS[target], [write(a) for a in args[1:]]
        )
    return None


def _as_linear(x: ast.expr, weight: ast.expr) -> ast.expr:
    """A call of the layer that owns `weight`, unless that is an argument of this function."""
    if isinstance(weight, ast.Attribute):
        return syntax.method(weight.value, "as_linear", [x])
    return ast.BinOp(x, ast.MatMult(), ast.Attribute(weight, "T"))


def _reshape(args: tuple[Any, ...], write: Write) -> ast.expr:
    sizes = args[1]
    if not isinstance(sizes, tuple | list) or not sizes:
        return syntax.method(write(args[0]), "reshape", [write(sizes)])
    return syntax.method(write(args[0]), "reshape", [write(size) for size in sizes])


def _transpose(args: tuple[Any, ...], write: Write) -> ast.expr:
    x = write(args[0])
    if len(args) == 1:
        return ast.Attribute(x, "T")
    axes = [write(axis) for axis in args[1]]
    order = [a.value if isinstance(a, ast.Constant) else None for a in axes]
    moved = [i for i, axis in enumerate(order) if axis != i]
    if len(moved) == 2 and None not in order:
        return syntax.method(x, "swapaxes", [ast.Constant(i) for i in moved])
    return syntax.method(x, "transpose", axes)


def index(value: Any, write: Write) -> ast.expr:
    """What stands between brackets: `:, None`, `..., 0`, `1:n`."""
    if isinstance(value, tuple):
        return ast.Tuple([index(part, write) for part in value])
    if isinstance(value, slice):
        if value == FULL:
            return ast.Slice()
        parts = (value.start, value.stop, value.step)
        return ast.Slice(*(None if part is None else write(part) for part in parts))
    return write(value)


@functools.cache
def _names() -> dict[int, str]:
    """Function -> the dotted name under which generated code calls it."""
    spaces = {
        "nn": nn,
        "nn.losses": nn.losses,
        "mx": mx,
        "mx.fast": mx.fast,
        "mx.linalg": mx.linalg,
        "mx.fft": mx.fft,
        "mx.random": mx.random,
        "math": math,
    }
    found: dict[int, str] = {}
    for prefix, space in spaces.items():
        for attribute, value in vars(space).items():
            if callable(value) and not attribute.startswith("_"):
                found.setdefault(id(value), f"{prefix}.{attribute}")
    for function in (
        builtins.max,
        builtins.min,
        builtins.round,
        builtins.int,
        builtins.float,
    ):
        found[id(function)] = function.__name__
    return found


def function_name(target: Any) -> str:
    """The name of a function in generated code; a helper is called by its own name."""
    if is_helper(target) or isinstance(target, Stub):
        return target.__name__
    if is_named(target):
        return _names()[id(target)]
    raise TypeError(f"{target!r} has no name in generated code")


def described(target: Any) -> str:
    """A function as a word: `+` for an operator, `x.astype`, `mx.mean`, the name of a helper."""
    x = ast.Name("x")
    if target in BINARY:
        return ast.unparse(ast.BinOp(x, BINARY[target], x))[2:-2]
    if target in COMPARE:
        return ast.unparse(ast.Compare(x, [COMPARE[target]], [x]))[2:-2]
    if target in UNARY:
        return ast.unparse(ast.UnaryOp(UNARY[target], x)).removesuffix("x").strip()
    if target is operator.getitem:
        return "x[...]"
    if target in AT:
        return f"x.at[...].{AT[target]}"
    if getattr(target, "__module__", "") == intrinsics.__name__:
        return f"x.{target.__name__}"
    return function_name(target) if is_named(target) else str(target)


def is_named(value: Any) -> bool:
    """Whether `value` is a function that generated code can name."""
    return id(value) in _names() or is_helper(value)


def is_helper(target: Any) -> bool:
    """Whether `target` is a function of the templates, to be copied into the generated file."""
    return inspect.isfunction(target) and target.__module__.startswith(
        "torch2mlx_templates."
    )
