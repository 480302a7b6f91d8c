"""Sizes as expressions over the input's sizes: what is always equal, what is always at least zero.

n = sym_size(x, 0); m = n * 2; k = m // 2     ->     n = sym_size(x, 0)
y = reshape(x, [k, -1])                              y = reshape(x, [n, -1])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.capture.values import is_read
from torch2mlx.passes.rewrite import ORIGIN, replace, tensor_of

aten = torch.ops.aten


def expression(captured: Captured, size: Any) -> sympy.Expr:
    """An integer argument of a call (a number, or the node that computes it) as an expression."""
    value = size.meta["val"] if isinstance(size, torch.fx.Node) else size
    return captured.expr(value)


def is_nonnegative(expr: sympy.Expr) -> bool:
    """Whether an expression is at least 0 whatever the sizes in it are.

    These are at least 1, except for those that are read from values.
    """
    sizes: Any = {
        symbol: sympy.Symbol(f"{symbol}_", integer=True, nonnegative=True) + 1
        for symbol in expr.free_symbols
        if not is_read(symbol)
    }
    return sympy.expand(expr.subs(sizes)).is_nonnegative is True


def limit_size(
    captured: Captured, symbol: sympy.Symbol, limit: int, source: tuple[str, int] | None
) -> None:
    """Note the largest value of a size for which the graph is right.

    Args:
        captured: Its `bounds` and `lengths` are added to.
        symbol: The size.
        limit: The value.
        source: The weight, and its axis, whose size that value is, if it is one's.
    """
    known = captured.bounds.get(symbol, math.inf)
    if limit < known:
        captured.bounds[symbol] = limit
        captured.lengths.pop(symbol, None)
    if limit <= known and source is not None:
        captured.lengths[symbol] = source


def size_node(captured: Captured, here: torch.fx.Node, size: Any) -> Any:
    """A size as an argument of a call before `here`: a number or a node; None where nothing has it."""
    expr = captured.expr(size)
    if expr.is_Integer:
        return int(expr)
    for node in captured.graph.nodes:
        if node is here:
            break
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and captured.expr(value) == expr:
            return node
    found = input_axis(captured, expr)
    return None if found is None else _input_size(captured, *found)


def input_axis(
    captured: Captured, expr: sympy.Expr
) -> tuple[torch.fx.Node, int] | None:
    """The first input, and its axis, that has a size."""
    for node in captured.graph.nodes:
        if node.op == "placeholder" and node.name not in captured.weights:
            value = tensor_of(node)
            for axis, size in enumerate(() if value is None else value.shape):
                if captured.expr(size) == expr:
                    return node, axis
    return None


def _input_size(captured: Captured, node: torch.fx.Node, axis: int) -> torch.fx.Node:
    placeholders = [n for n in captured.graph.nodes if n.op == "placeholder"]
    with captured.graph.inserting_after(placeholders[-1]):
        new = captured.graph.call_function(aten.sym_size.int, (node, axis))
    new.meta.update({key: node.meta[key] for key in ORIGIN if key in node.meta})
    new.meta["val"] = node.meta["val"].shape[axis]
    return new


def shape_arguments(
    captured: Captured, here: torch.fx.Node, shape: Sequence[Any]
) -> list[Any] | None:
    """A shape as an argument of a call before `here`; None where a size of it is nowhere to be had."""
    found = [size_node(captured, here, size) for size in shape]
    return None if any(size is None for size in found) else found


def fold_sizes(captured: Captured) -> bool:
    """Write sizes that are always the same number as that number, and equal sizes as one node."""
    changed = False
    known: dict[sympy.Expr, torch.fx.Node] = {}
    for node in list(captured.graph.nodes):
        if (
            not isinstance(node.meta.get("val"), torch.SymInt)
            or node.op != "call_function"
        ):
            continue
        expr = captured.expr(node.meta["val"])
        if expr.is_Integer:
            _write_number(node, int(expr))
            changed = True
        elif expr in known:
            replace(node, known[expr])
            changed = True
        else:
            known[expr] = node
    return changed


def _write_number(node: torch.fx.Node, number: int) -> None:
    for user in list(node.users):
        arguments = (user.args, user.kwargs)
        user.args, user.kwargs = map_arg(  # type: ignore[misc]
            arguments, lambda n: number if n is node else n
        )
    node.graph.erase_node(node)
