"""Places that only index stay unsigned, as MLX finds them.

order = mx.argsort(x).astype(mx.int32)            order = mx.argsort(x)
y = w[order[:, :2]]                      ->       y = w[order[:, :2]]
"""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.ir import intrinsics
from torch2mlx_templates import helpers

SEARCHES = {mx.argsort, mx.argpartition, mx.argmax, mx.argmin}
# What gives some of the places, in another shape
MOVES = {
    mx.stop_gradient,
    mx.reshape,
    mx.flatten,
    mx.unflatten,
    mx.squeeze,
    mx.expand_dims,
    mx.transpose,
    mx.swapaxes,
    mx.take_along_axis,
    operator.getitem,
}
# Position of the argument that indexes
INDEXED: dict[Any, int] = {
    operator.getitem: 1,
    mx.take: 1,
    mx.take_along_axis: 1,
    helpers.gather_mm: 2,
}


def keep_unsigned(graph: torch.fx.Graph) -> None:
    """Drop the casts to signed integers of places that nothing but indices is made of."""
    for node in list(graph.nodes):
        if node.target is intrinsics.astype and node.args[1] == mx.int32:
            source: Any = node.args[0]
            moved: list[torch.fx.Node] = []
            if _is_searched(source) and _only_indexes(node, moved):
                for each in moved:
                    each.meta["hint"] = each.meta["hint"].astype(mx.uint32)
                node.replace_all_uses_with(source)
                graph.erase_node(node)


def _is_searched(node: torch.fx.Node) -> bool:
    while node.target in MOVES and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
    return node.target in SEARCHES


def _only_indexes(node: torch.fx.Node, moved: list[torch.fx.Node]) -> bool:
    """Whether each use of places is as an index; what moves them on the way is added to `moved`."""
    for user in node.users:
        if user.target in SEARCHES:
            continue  # signed and unsigned ones are in the same order
        position = INDEXED.get(user.target)
        values = list(user.args)
        if position is not None and position < len(values):
            index = values.pop(position)
            others = _arrays(index) - {node}
            if _has(index, node) and not others and not _has(values, node):
                continue  # indices of several dtypes are all cast to a wider one
        is_moved = user.target in MOVES and user.args[0] is node
        if not is_moved or _has((user.args[1:], user.kwargs), node):
            return False
        moved.append(user)
        if not _only_indexes(user, moved):
            return False
    return True


def _arrays(value: Any) -> set[torch.fx.Node]:
    found: list[torch.fx.Node] = []
    torch.fx.map_arg(value, found.append)  # type: ignore[arg-type]
    return {node for node in found if isinstance(node.meta["hint"], mx.array)}


def _has(value: Any, node: torch.fx.Node) -> bool:
    found: list[torch.fx.Node] = []
    torch.fx.map_arg(value, found.append)  # type: ignore[arg-type]
    return node in found
