"""One pair of brackets for several, on the lowered graph.

y = x[:, None]                 z = x[:, None, None]
z = y[:, :, None]      ->

y = mx.stack([a, b])           z = b
z = y[-1]              ->
"""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import torch.fx

FULL = slice(None)


def merge_indices(graph: torch.fx.Graph) -> bool:
    """Merge each index of new axes and whole axes into the one before it, where only it reads that."""
    changed = False
    for node in list(graph.nodes):
        source = node.args[0] if node.target is operator.getitem else None
        if (
            not isinstance(source, torch.fx.Node)
            or source.target is not operator.getitem
        ):
            continue
        if len(source.users) > 1 or "forward_args" in source.meta:
            continue
        merged = _merged(_parts(source.args[1]), _parts(node.args[1]))
        if merged is None:
            continue
        node.args = (source.args[0], merged[0] if len(merged) == 1 else tuple(merged))
        graph.erase_node(source)
        changed = True
    return changed


def pick_from_stacks(graph: torch.fx.Graph) -> bool:
    """Replace what is picked from arrays stacked along a new first axis by that array."""
    changed = False
    for node in list(graph.nodes):
        picked = _picked(node)
        if picked is not None:
            node.replace_all_uses_with(picked)
            graph.erase_node(node)
            changed = True
    if changed:
        for node in reversed(list(graph.nodes)):
            if node.target is mx.stack and not node.users:
                graph.erase_node(node)
    return changed


def _picked(node: torch.fx.Node) -> torch.fx.Node | None:
    source: Any = node.args[0] if node.args else None
    if not isinstance(source, torch.fx.Node) or len(node.args) < 2:
        return None
    index: Any = node.args[1]
    new_axis = source.target is operator.getitem and source.args[1] is None
    if node.target is mx.squeeze and new_axis and index in (0, (0,), [0]):
        return source.args[0]  # type: ignore[return-value]
    if node.target is not operator.getitem or not isinstance(index, int):
        return None
    if new_axis:
        return source.args[0]  # type: ignore[return-value]
    parts: Any = source.args[0] if source.args else None
    whole = len(source.args) == 1 and not source.kwargs and isinstance(parts, list)
    return parts[index] if source.target is mx.stack and whole else None


def _parts(index: Any) -> list[Any]:
    return list(index) if isinstance(index, tuple) else [index]


def _merged(first: list[Any], second: list[Any]) -> list[Any] | None:
    """The index that does both, `first` of whole and new axes only."""
    if any(part is not None and part != FULL for part in first):
        return None
    if any(
        part is Ellipsis or isinstance(part, torch.fx.Node | list) for part in second
    ):
        return None
    rest, merged = list(first), []
    for part in second:
        if part is None:
            merged.append(None)
            continue
        axis = rest.pop(0) if rest else FULL
        if axis is None and part != FULL:
            return None  # indexes an axis of size 1 that the first one made
        merged.append(None if axis is None else part)
    merged += rest
    while len(merged) > 1 and merged[-1] == FULL:
        merged.pop()
    return merged
