"""Reshapes of channels-last arrays: free where the elements stay in the order in which they are stored."""

from __future__ import annotations

import math
import operator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.layout.absorbed import Absorbed
from torch2mlx.layout.perms import (
    Perm,
    channels_last,
    identity,
    last,
    ordered,
    permutation,
    rank,
)
from torch2mlx.layout.pointwise import POINTWISE, POINTWISE_LAYERS
from torch2mlx.passes.index_map import Axes, IndexMap, Shape


def reshape(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.reshape`, `mx.flatten`, `mx.unflatten` or `mx.squeeze`."""
    x = node.args[0]
    assert isinstance(x, torch.fx.Node)
    before, after = _sizes(x, captured), _sizes(node, captured)
    if before is None or after is None or max(rank(x), rank(node)) < 3:
        return None
    found = IndexMap.identity(before).reshaped(after)
    operands = [x] if rank(x) > 2 else []
    source = channels_last(x) if operands else identity(rank(x))
    if found is not None:
        orders = {last(rank(node)): True, identity(rank(node)): False}
        if rank(node) < 3:
            orders = {identity(rank(node)): False}
        elif min(rank(x), rank(node)) > 3:
            orders.setdefault(parts_order(found.source, found.target, source), True)
        for target, result in orders.items():
            if _is_view(stored := _stored(found, source, target)):
                call = _call(node, x, stored, source, target)
                if call is None:
                    continue
                if result and target != last(rank(node)):
                    node.meta["last"] = target
                return Absorbed(*call, {}, operands, result)
    return _before_linear(node, x, after)


def parts_order(whole: Axes, parts: Axes, order: Perm) -> Perm:
    """The axes of a divided (or merged) array in the order of those that they come from."""
    place = {atom: i for i, axis in enumerate(ordered(whole, order)) for atom in axis}
    atoms = [
        min((place[a], axis.index(a)) for a in axis) if axis else (-1, 0)
        for axis in parts
    ]
    return tuple(sorted(identity(len(parts)), key=lambda axis: (atoms[axis], axis)))


def order_before_merge(node: torch.fx.Node, captured: Captured) -> Perm | None:
    """The order of an array that is only reshaped, so that the result is channels-last for free."""
    users = [user for user in node.users if user.target in (mx.reshape, mx.flatten)]
    if len(users) != 1 or len(node.users) != 1 or rank(users[0]) < 3:
        return None
    before, after = _sizes(node, captured), _sizes(users[0], captured)
    if before is None or after is None:
        return None
    found = IndexMap.identity(before).reshaped(after)
    if found is None:
        return None
    target = last(rank(users[0]))
    order = parts_order(found.target, found.source, target)
    return order if _is_view(_stored(found, order, target)) else None


def _sizes(node: torch.fx.Node, captured: Captured) -> Shape | None:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.ndim == rank(node):
        return tuple(captured.expr(size) for size in value.shape)
    found: tuple[Any, ...] | None = None
    if (perm := permutation(node)) is not None:
        (operand,) = node.all_input_nodes
        sizes = _sizes(operand, captured)
        found = sizes and ordered(sizes, perm)
    elif node.target is mx.reshape:
        shape: Any = node.args[1]
        found = tuple(_expression(size, captured) for size in shape)
    return None if found is None or None in found else found


def _expression(size: Any, captured: Captured) -> sympy.Expr | None:
    """A size among the arguments of a node; None where it is not known."""
    if isinstance(size, int):
        return None if size == -1 else sympy.Integer(size)
    if size.meta.get("expr") is not None:
        return captured.expr(size.meta["expr"])
    if size.target is not operator.mul:
        return None
    factors = [_expression(factor, captured) for factor in size.args]
    known = [factor for factor in factors if factor is not None]
    return sympy.Mul(*known) if len(known) == len(factors) else None


def _stored(found: IndexMap, source: Perm, target: Perm) -> IndexMap:
    """The map between the arrays as they are stored."""
    axes = ordered(found.source, source), ordered(found.target, target)
    return IndexMap(*axes, found.sizes).joined()


def _is_view(stored: IndexMap) -> bool:
    return all(step.order is None for step in stored.steps())


def _call(
    node: torch.fx.Node, x: torch.fx.Node, stored: IndexMap, source: Perm, target: Perm
) -> tuple[Any, tuple[Any, ...]] | None:
    """What is called on the stored array, and the arguments; None where it has no call."""
    args: Any = node.args
    if node.target is mx.squeeze and len(args) > 1:
        dropped = [args[1]] if isinstance(args[1], int) else args[1]
        gone = {axis % rank(x) for axis in dropped}
        kept = [axis for axis in source if axis not in gone]
        # An axis of size 1 that stays must stay where the result has it
        if tuple(sorted(kept).index(axis) for axis in kept) != target:
            return None
        places: Any = tuple(sorted(map(source.index, gone)))
        return mx.squeeze, (x, places if len(places) > 1 else places[0])
    merged = _run(stored.source, stored.target)
    if merged is not None:
        start, end = merged
        return mx.flatten, (
            (x, start) if end == len(stored.source) - 1 else (x, start, end)
        )
    if node.target is mx.reshape:
        return mx.reshape, (x, ordered(args[1], target))
    divided = _run(stored.target, stored.source)
    if divided is not None and node.target is mx.unflatten:
        start, end = divided
        first = args[1] % rank(x)
        parts = [axis - first for axis in target[start : end + 1]]
        if sorted(parts) == list(range(len(args[2]))):
            return mx.unflatten, (x, start, ordered(args[2], tuple(parts)))
    return None


def _run(many: Axes, few: Axes) -> tuple[int, int] | None:
    """The first and last of the axes that are merged into one, if no others change."""
    for start in range(len(few)):
        rest = len(few) - 1 - start
        end = len(many) - 1 - rest
        middle = tuple(atom for axis in many[start : end + 1] for atom in axis)
        outside = many[:start] == few[:start] and many[end + 1 :] == few[start + 1 :]
        if end > start and outside and middle == few[start]:
            return start, end
    return None


def _before_linear(
    node: torch.fx.Node, x: torch.fx.Node, after: Shape
) -> Absorbed | None:
    """[N, C, *S] flattened to [N, C S] for linear layers: their weights are reordered instead."""
    inner = tuple(x.meta["hint"].shape[1:])
    value = node.meta.get("val")
    fixed = value is not None and all(isinstance(s, int) for s in value.shape[1:])
    if rank(x) < 3 or len(after) != 2 or not fixed or after[1] != math.prod(inner):
        return None
    linears = _linears(node)
    if not linears:
        return None
    sizes = dict.fromkeys(linears, inner)
    return Absorbed(mx.flatten, (x, 1), {}, [x], False, linears=sizes)


def _linears(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The linear layers that take `node`, through pointwise operations; none if something else does."""
    found: list[torch.fx.Node] = []
    paths = [n.target for n in node.graph.nodes if n.op == "call_module"]
    pending = [node]
    for value in pending:
        for user in value.users:
            layer = user.meta.get("layer")
            cls = layer.cls if layer is not None else None
            alone = len(user.all_input_nodes) == 1
            if cls is nn.Linear and paths.count(user.target) == 1:
                found.append(user)
            elif alone and (user.target in POINTWISE or cls in POINTWISE_LAYERS):
                pending.append(user)
            else:
                return []
    return found
