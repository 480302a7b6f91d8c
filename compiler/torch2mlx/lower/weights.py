"""Expressions over weights alone: resolved into the weight plan instead of being computed at run time."""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import torch
import torch.fx

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.facade import Decline

aten = torch.ops.aten

MOVES = {aten.t.default, aten.transpose.int, aten.permute.default}


def moves_weight(node: torch.fx.Node) -> bool:
    """Whether a captured call transposes a placeholder; a layer has that in its weights."""
    x = node.args[0] if node.args else None
    return (
        node.target in MOVES and isinstance(x, torch.fx.Node) and x.op == "placeholder"
    )


def weight_of(node: torch.fx.Node) -> Weight:
    """The weight that `node` computes from parameters by moving, cutting or adding them.

    Raises:
        Decline: `node` is not such an expression.
    """
    if node.op == "get_attr":
        return node.meta["weight"]
    args: Any = node.args
    if node.target is mx.transpose:
        ndim = node.meta["hint"].ndim
        axes = args[1] if len(args) > 1 else tuple(reversed(range(ndim)))
        return weight_of(args[0]).then("transpose", tuple(a % ndim for a in axes))
    if node.target is mx.reshape:
        return weight_of(args[0]).then("reshape", tuple(node.meta["hint"].shape))
    if node.target is operator.getitem:
        return _part(*args)
    if node.target is operator.add and len(node.all_input_nodes) == 2:
        first, second = (weight_of(arg) for arg in args)
        if not (first.steps or second.steps or first.merge or second.merge):
            return Weight(first.sources + second.sources, "sum", (), first.trainable)
    raise Decline(f"{node.name} is not a weight")


def _part(source: Any, index: Any) -> Weight:
    """`source[start:stop]`, or a part of what is split along the first axis."""
    start, size = 0, 0
    if isinstance(index, slice):
        length = source.meta["hint"].shape[0]
        if not all(p is None or isinstance(p, int) for p in (index.start, index.stop)):
            raise Decline("its bounds depend on the input")
        start, stop, step = index.indices(length)
        if step != 1:
            raise Decline("a weight with gaps")
        size = stop - start
    elif source.target is mx.split:
        if source.kwargs.get("axis", 0) or len(source.args) > 2:
            raise Decline("a weight cut along another axis")
        sizes = [part.shape[0] for part in source.meta["hint"]]
        start, size = sum(sizes[:index]), sizes[index]
        source = source.args[0]
    else:
        raise Decline("a weight that is picked by number")
    return weight_of(source).then("slice", 0, start, start + size)
