"""Which sizes of the inputs need no check: those that a layer's weight fixes, in MLX as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture.captured import Captured

aten = torch.ops.aten

# A weight over several axes is no operand of MLX's norms as it is
NORMS = (aten.layer_norm.default, aten.rms_norm.default)
# Operators whose weight fixes one axis of the first operand: (its place, the axis counted from the end)
CONTRACTIONS: dict[Any, tuple[int, int]] = {
    aten.linear.default: (1, -1),
    aten.conv1d.default: (1, -2),
    aten.conv1d.padding: (1, -2),
    aten.conv2d.default: (1, -3),
    aten.conv2d.padding: (1, -3),
    aten.conv3d.default: (1, -4),
    aten.conv3d.padding: (1, -4),
    **dict.fromkeys(NORMS, (2, -1)),
}


def enforced_axes(captured: Captured) -> set[tuple[str, int]]:
    """(Placeholder, axis) of each size of an input for which MLX would refuse another than the weight's.

    The way from the input to the layer has elementwise operators with numbers alone: two arrays would
    be broadcast.
    """
    found: set[tuple[str, int]] = set()
    placeholders = {n.name: n for n in captured.graph.nodes if n.op == "placeholder"}
    for item in captured.inputs:
        for node, user in _reached(placeholders[item.name]):
            place, axis = CONTRACTIONS.get(user.target, (0, 0))
            weight = user.args[place] if place < len(user.args) else None
            if (
                user.args[:1] == (node,)
                and isinstance(weight, torch.fx.Node)
                and weight.name in captured.weights
                and (user.target not in NORMS or weight.meta["val"].ndim == 1)
            ):
                found.add((item.name, node.meta["val"].ndim + axis))
    return found


def _reached(node: torch.fx.Node) -> Iterator[tuple[torch.fx.Node, torch.fx.Node]]:
    """(Value, user of it) of all values that are `node` but for elementwise operators."""
    for user in node.users:
        yield node, user
        if (
            isinstance(user.target, OpOverload)
            and torch.Tag.pointwise in user.target.tags
            and user.all_input_nodes == [node]
            and getattr(user.meta["val"], "shape", None) == node.meta["val"].shape
        ):
            yield from _reached(user)
