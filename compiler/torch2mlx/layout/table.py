"""What each MLX operation makes of channels-last operands: the one table of the layout pass.

A rule gets a node and says how the same result is computed when its operands are stored channels-last,
and how the result is stored then. A node without a rule takes and gives arrays as PyTorch stores them.
"""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Weight
from torch2mlx.ir.regions import choose
from torch2mlx.layout.absorbed import Absorbed, Rule, stored_in
from torch2mlx.layout.items import item
from torch2mlx.layout.perms import Perm, channels_last, identity, last, ordered, rank
from torch2mlx.layout.pointwise import POINTWISE, POINTWISE_LAYERS
from torch2mlx.layout.reshapes import reshape
from torch2mlx.lower.facade import Decline
from torch2mlx.lower.weights import weight_of


def absorbed(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`node` on channels-last operands, or None where that is not possible."""
    if node.op == "call_module":
        rule = elementwise if node.meta["layer"].cls in POINTWISE_LAYERS else None
    elif node.op == "call_function":
        rule = RULES.get(node.target)
    else:
        rule = None
    return rule(node, captured) if rule is not None else None


def _order(operands: list[torch.fx.Node]) -> Perm | None:
    """The order that all operands are stored in if they are channels-last; None where they differ."""
    orders = {channels_last(operand) for operand in operands}
    return orders.pop() if len(orders) == 1 else None


def elementwise(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """Operands that broadcast: all channels-last, weights of lower rank in a shape that fits."""
    ndim = rank(node)
    operands: list[torch.fx.Node] = []
    weights: dict[torch.fx.Node, tuple[Weight, tuple[int, ...]]] = {}
    for operand in node.all_input_nodes:
        own = rank(operand)
        if own == ndim:
            operands.append(operand)
        elif own:
            weight = _own_weight(operand)
            if weight is None:
                return None
            weights[operand] = weight, operand.meta["hint"].shape
    order = _order(operands) if ndim > 2 else None
    if order is None:
        return None
    weights = {n: _aligned(*own, order) for n, own in weights.items()}
    stored_in(node, order)
    return Absorbed(node.target, node.args, dict(node.kwargs), operands, True, weights)


def _own_weight(node: torch.fx.Node) -> Weight | None:
    """The weight that `node` computes from a parameter that nothing else uses."""
    source = node
    while source.op != "get_attr":
        if len(source.users) != 1 or len(source.all_input_nodes) != 1:
            return None
        source = source.all_input_nodes[0]
    try:
        alone = len(source.users) == 1 and is_sole_use(source)
        return weight_of(node) if alone else None
    except Decline:
        return None


def is_sole_use(node: torch.fx.Node) -> bool:
    """Whether no layer and no other node takes the parameter of a `get_attr` node."""
    own = node.meta["weight"]
    if own.expression:
        return True
    sources = set(own.sources)
    for other in node.graph.nodes:
        if other.op == "get_attr" and other is not node:
            weights = [other.meta["weight"]]
        elif other.op == "call_module":
            weights = other.meta["layer"].weights.values()
        else:
            continue
        if any(
            sources.intersection(weight.sources)
            for weight in weights
            if not weight.expression  # its array is another one
        ):
            return False
    return True


def _aligned(
    weight: Weight, shape: tuple[int, ...], order: Perm
) -> tuple[Weight, tuple[int, ...]]:
    """A weight of lower rank and its shape, so that it broadcasts with arrays stored in `order`."""
    ndim = len(order)
    if order != last(ndim):
        whole = (1,) * (ndim - len(shape)) + tuple(shape)
        weight = weight.then("reshape", whole).then("transpose", order)
        return weight, ordered(whole, order)
    if len(shape) == ndim - 1:
        order = (*range(1, ndim - 1), 0)
        return weight.then("transpose", order), ordered(shape, order)
    return weight.then("reshape", (*shape, 1)), (*shape, 1)


def along(position: int, default: Any, name: str = "axis") -> Rule:
    """An operation along one axis (or some), which keeps all axes.

    Args:
        position: Where the axis stands among the arguments.
        default: What it is when it is not given; None is all of a flattened array.
        name: The argument's keyword.
    """

    def rule(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
        operands = [n for n in node.all_input_nodes if rank(n) > 1]
        ndim = rank(operands[0]) if operands else 0
        if ndim < 3 or any(rank(n) != ndim for n in operands):
            return None
        axis, order = _argument(node, position, name, default), _order(operands)
        if axis is None or order is None or rank(node) != ndim:
            return None
        args, kwargs = _with_argument(node, position, name, _renumbered(axis, order))
        stored_in(node, order)
        return Absorbed(node.target, args, kwargs, operands, True)

    return rule


def reduction(flat: bool = True) -> Rule:
    """A reduction over some axes; over all of them only if the order does not matter (`flat`)."""

    def rule(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
        (x,) = node.all_input_nodes if len(node.all_input_nodes) == 1 else (None,)
        ndim = rank(x)
        if x is None or ndim < 3:
            return None
        axis = _argument(node, 1, "axis", None)
        keepdims = _argument(node, 2, "keepdims", False)
        order = channels_last(x)
        if axis is None:
            if not flat:
                return None
            if keepdims:
                stored_in(node, order)
            return Absorbed(
                node.target, node.args, dict(node.kwargs), [x], bool(keepdims)
            )
        args, kwargs = _with_argument(node, 1, "axis", _renumbered(axis, order))
        gone = {a % ndim for a in ([axis] if isinstance(axis, int) else axis)}
        kept = [a for a in order if keepdims or a not in gone]
        result = _stored(node, kept)
        return (
            None if result is None else Absorbed(node.target, args, kwargs, [x], result)
        )

    return rule


def _stored(node: torch.fx.Node, axes: list[int]) -> bool | None:
    """How `node` is stored if its axes come in this order: channels-last, in order, or neither."""
    order = tuple(sorted(axes).index(axis) for axis in axes)
    if order == identity(len(order)):
        return False
    if len(order) > 3:
        stored_in(node, order)
        return True
    return True if order == last(len(order)) and len(order) > 2 else None


def _argument(node: torch.fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _with_argument(
    node: torch.fx.Node, position: int, name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(node.args) > position:
        return (*node.args[:position], value, *node.args[position + 1 :]), dict(
            node.kwargs
        )
    return node.args, {**node.kwargs, name: value}


def _renumbered(axis: Any, order: Perm) -> Any:
    """Axes of an array stored in `order`; the last one is -1, as people write it."""
    ndim = len(order)
    if isinstance(axis, int):
        new = order.index(axis % ndim)
        return -1 if new == ndim - 1 else new
    return tuple(sorted(order.index(a % ndim) for a in axis))


def roll(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.roll`, whose shifts go with the axes."""
    found = along(2, None)(node, captured)
    axis = _argument(node, 2, "axis", None)
    if found is not None and not isinstance(axis, int):
        order = channels_last(node)
        new = tuple(order.index(a % rank(node)) for a in axis)
        found.args, found.kwargs = _with_argument(node, 2, "axis", new)
    return found


def join(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.concatenate`."""
    return along(1, 0)(node, captured)


def stack(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.stack`: its operands channels-last, or as they are where they become the channels."""
    parts = node.all_input_nodes
    ndim = rank(node)
    if ndim < 3 or any(rank(n) != ndim - 1 or "last" in n.meta for n in parts):
        return None
    axis = _argument(node, 1, "axis", 0) % ndim
    for order in (last(ndim - 1), identity(ndim - 1)):
        kept = [a + (a >= axis) for a in order]
        if [a for a in last(ndim) if a != axis] == kept:
            new = _renumbered(axis, last(ndim))
            args, kwargs = _with_argument(node, 1, "axis", new)
            operands = parts if order != identity(ndim - 1) else []
            return Absorbed(node.target, args, kwargs, operands, True)
    return None


def per_axis(position: int) -> Rule:
    """An operation with one argument per axis: pad widths, tile counts, a shape to broadcast to."""

    def rule(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
        x, *others = node.all_input_nodes
        values: Any = node.args[position] if len(node.args) > position else None
        ndim = rank(x)
        fits = isinstance(values, tuple | list) and len(values) == ndim
        if ndim < 3 or ndim != rank(node) or not fits or any(map(rank, others)):
            return None
        args = (
            *node.args[:position],
            ordered(values, channels_last(x)),
            *node.args[position + 1 :],
        )
        stored_in(node, channels_last(x))
        return Absorbed(node.target, args, dict(node.kwargs), [x], True)

    return rule


def store(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """A new value for all of an input; buffers stay as PyTorch has them."""
    target: Any = node.args[0]
    is_whole = target.op == "placeholder" and node.args[1] is None
    return elementwise(node, captured) if is_whole else None


def chosen(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """The array of one of two branches."""
    is_one = not isinstance(node.meta["hint"], list | tuple)
    return elementwise(node, captured) if is_one else None


def vector_norm(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.linalg.norm` along one axis."""
    (x,) = node.all_input_nodes
    axis, order = _argument(node, 2, "axis", None), channels_last(x)
    axis = axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or rank(x) < 3:
        return None
    keepdims = _argument(node, 3, "keepdims", False)
    args, kwargs = _with_argument(node, 2, "axis", _renumbered(axis, order))
    kept = [a for a in order if keepdims or a != axis % rank(x)]
    result = _stored(node, kept)
    return None if result is None else Absorbed(node.target, args, kwargs, [x], result)


def creation(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """An array of one number, in either order."""
    shape: Any = node.args[0]
    filled = any(rank(operand) for operand in node.all_input_nodes)
    if rank(node) < 3 or filled or not isinstance(shape, list | tuple):
        return None
    args = (ordered(shape, last(rank(node))), *node.args[1:])
    return Absorbed(node.target, args, dict(node.kwargs), [], True)


SCANS = "cumsum cumprod cummax cummin logcumsumexp"
REDUCTIONS = "all any logsumexp max mean min prod std sum var"

RULES: dict[Any, Rule] = {
    **dict.fromkeys(POINTWISE, elementwise),
    **{getattr(mx, name): reduction() for name in REDUCTIONS.split()},
    mx.argmax: reduction(flat=False),
    mx.argmin: reduction(flat=False),
    **{getattr(mx, name): along(1, None) for name in SCANS.split()},
    mx.linalg.norm: vector_norm,
    **dict.fromkeys((mx.full, mx.ones, mx.zeros), creation),
    mx.softmax: along(1, None),
    mx.sort: along(1, -1),
    mx.argsort: along(1, -1),
    nn.softmax: along(1, -1),
    nn.log_softmax: along(1, -1),
    nn.glu: along(1, -1),
    mx.split: along(2, 0),
    mx.repeat: along(2, None),
    mx.take: along(2, None),
    mx.take_along_axis: along(2, None),
    mx.roll: roll,
    mx.concatenate: join,
    mx.stack: stack,
    mx.pad: per_axis(1),
    mx.tile: per_axis(1),
    mx.broadcast_to: per_axis(1),
    operator.getitem: item,
    intrinsics.store: store,
    choose: chosen,
    mx.reshape: reshape,
    mx.flatten: reshape,
    mx.unflatten: reshape,
    mx.squeeze: reshape,
}
