"""Expressions over weights alone: resolved into the weight plan instead of being computed at run time."""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.facade import Decline


def weight_of(node: torch.fx.Node) -> Weight:
    """The weight that `node` computes from parameters by transposing, reshaping or adding.

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
    if node.target is operator.add:
        first, second = (weight_of(arg) for arg in args)
        if not (first.steps or second.steps or first.merge or second.merge):
            return Weight(first.sources + second.sources, "sum", (), first.trainable)
    raise Decline(f"{node.name} is not a weight")
