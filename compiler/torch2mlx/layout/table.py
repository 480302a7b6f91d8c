"""What each MLX operation makes of channels-last operands: the one table of the layout pass.

A rule gets a node and says how the same result is computed when its operands are stored channels-last,
and how the result is stored then. A node without a rule takes and gives arrays as PyTorch stores them.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Weight
from torch2mlx.ir.regions import choose
from torch2mlx.layout.absorbed import Absorbed, Rule
from torch2mlx.layout.perms import identity, last, ordered, rank
from torch2mlx.layout.pointwise import POINTWISE, POINTWISE_LAYERS
from torch2mlx.layout.reshapes import reshape
from torch2mlx.lower.facade import Decline, map_values
from torch2mlx.lower.weights import weight_of
from torch2mlx.weights.folding import FOLDS


def absorbed(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`node` on channels-last operands, or None where that is not possible."""
    if node.op == "call_module":
        rule = elementwise if node.meta["layer"].cls in POINTWISE_LAYERS else None
    elif node.op == "call_function":
        rule = RULES.get(node.target)
    else:
        rule = None
    if rule is not reshape and any("last" in n.meta for n in node.all_input_nodes):
        return None
    return rule(node, captured) if rule is not None else None


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
            weights[operand] = _aligned(weight, operand.meta["hint"].shape, ndim)
    if ndim < 3 or not operands:
        return None
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
    if own.merge in FOLDS:
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
            if weight.merge not in FOLDS  # its array is another one
        ):
            return False
    return True


def _aligned(
    weight: Weight, shape: tuple[int, ...], ndim: int
) -> tuple[Weight, tuple[int, ...]]:
    """A weight of lower rank and its shape, so that it broadcasts with channels-last arrays."""
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
        axis = _argument(node, position, name, default)
        if axis is None or rank(node) != ndim:
            return None
        args, kwargs = _with_argument(node, position, name, _renumbered(axis, ndim))
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
        if axis is None:
            if not flat:
                return None
            return Absorbed(
                node.target, node.args, dict(node.kwargs), [x], bool(keepdims)
            )
        args, kwargs = _with_argument(node, 1, "axis", _renumbered(axis, ndim))
        gone = {a % ndim for a in ([axis] if isinstance(axis, int) else axis)}
        result = True if keepdims else _stored([a for a in last(ndim) if a not in gone])
        return (
            None if result is None else Absorbed(node.target, args, kwargs, [x], result)
        )

    return rule


def _stored(axes: list[int]) -> bool | None:
    """How an array is stored whose axes come in this order: channels-last, in order, or neither."""
    order = tuple(sorted(axes).index(axis) for axis in axes)
    if order == identity(len(order)):
        return False
    return True if len(order) > 2 and order == last(len(order)) else None


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


def _renumbered(axis: Any, ndim: int) -> Any:
    """Axes of a channels-last array; the last one is -1, as people write it."""
    order = last(ndim)
    if isinstance(axis, int):
        new = order.index(axis % ndim)
        return -1 if new == ndim - 1 else new
    return tuple(sorted(order.index(a % ndim) for a in axis))


def roll(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`mx.roll`, whose shifts go with the axes."""
    found = along(2, None)(node, captured)
    axis = _argument(node, 2, "axis", None)
    if found is not None and not isinstance(axis, int):
        order = last(rank(node))
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
    if ndim < 3 or any(rank(n) != ndim - 1 for n in parts):
        return None
    axis = _argument(node, 1, "axis", 0) % ndim
    for order in (last(ndim - 1), identity(ndim - 1)):
        kept = [a + (a >= axis) for a in order]
        if [a for a in last(ndim) if a != axis] == kept:
            new = _renumbered(axis, ndim)
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
            ordered(values, last(ndim)),
            *node.args[position + 1 :],
        )
        return Absorbed(node.target, args, dict(node.kwargs), [x], True)

    return rule


def item(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`x[...]` with slices, numbers and None; one of several arrays."""
    x: Any
    x, index = node.args
    ndim = rank(x)
    if isinstance(x.meta["hint"], list | tuple):
        return Absorbed(node.target, node.args, {}, [x], True) if ndim > 2 else None
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(_is_array(part) for part in parts) or not ndim:
        return None
    full = _expanded(parts, ndim)
    axes = itertools.count()
    sources = [None if part is None else next(axes) for part in full]
    of_axis = {a: part for a, part in zip(sources, full, strict=True) if a is not None}
    # The axes of the result: those of x that are not dropped, and None for new ones.
    result = [a for a in sources if a is None or isinstance(of_axis[a], slice)]
    for before in _orders(ndim):
        kept = [a for a in before if isinstance(of_axis[a], slice)]
        for after in _orders(len(result)):
            is_last = after != identity(len(result))
            stored = ordered(result, after)
            if [a for a in stored if a is not None] == kept and (
                is_last or before != identity(ndim)
            ):
                new = _merged(stored, [of_axis[a] for a in before])
                operands = [x] if before != identity(ndim) else []
                return Absorbed(node.target, (x, new), {}, operands, is_last)
    return None


def _orders(ndim: int) -> list[tuple[int, ...]]:
    """The orders that an array may be stored in, channels-last first."""
    return [last(ndim), identity(ndim)] if ndim > 2 else [identity(ndim)]


def _is_array(part: Any) -> bool:
    found: list[bool] = []
    map_values(
        lambda v: found.append(isinstance(v, torch.fx.Node) and not _is_size(v)), part
    )
    return any(found) or isinstance(part, mx.array | list | bool)


def _is_size(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("hint"), int)


def _expanded(parts: list[Any], ndim: int) -> list[Any]:
    """An index with a slice or number for every axis."""
    missing = ndim - sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * missing
    for i, part in enumerate(parts):
        if part is Ellipsis:
            return [*parts[:i], *rest, *parts[i + 1 :]]
    return [*parts, *rest]


def _merged(stored: tuple[int | None, ...], parts: list[Any]) -> Any:
    """The index of the stored array: its parts, with None where the result has a new axis."""
    index: list[Any] = []
    kept = iter(stored)
    for part in parts:
        if isinstance(part, slice):
            # The result's next axis of x is this one; new axes stand before it.
            index.extend(None for _ in itertools.takewhile(lambda a: a is None, kept))
        index.append(part)
    index.extend(None for axis in kept if axis is None)
    while len(index) > 1 and index[-1] == slice(None):
        index.pop()
    return index[0] if len(index) == 1 else tuple(index)


def store(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """A new value for all of an input; buffers stay as PyTorch has them."""
    target: Any = node.args[0]
    is_whole = target.op == "placeholder" and node.args[1] is None
    return elementwise(node, captured) if is_whole else None


def chosen(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """The array of one of two branches."""
    is_one = not isinstance(node.meta["hint"], list | tuple)
    return elementwise(node, captured) if is_one else None


SCANS = "cumsum cumprod cummax cummin logcumsumexp"
REDUCTIONS = "all any logsumexp max mean min prod std sum var"

RULES: dict[Any, Rule] = {
    **dict.fromkeys(POINTWISE, elementwise),
    **{getattr(mx, name): reduction() for name in REDUCTIONS.split()},
    mx.argmax: reduction(flat=False),
    mx.argmin: reduction(flat=False),
    **{getattr(mx, name): along(1, None) for name in SCANS.split()},
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
