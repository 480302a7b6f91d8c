"""Write a reduction whose axes are dropped right after it without `keepdims`.

flatten(mean(x, axis=(2, 3), keepdims=True), 1)     ->     mean(x, axis=(2, 3))
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import torch
import torch.fx

from torch2mlx.capture import Captured

REDUCTIONS = {
    mx.all,
    mx.any,
    mx.logsumexp,
    mx.max,
    mx.mean,
    mx.min,
    mx.prod,
    mx.std,
    mx.sum,
    mx.var,
}
RESHAPES = {mx.flatten, mx.reshape, mx.squeeze}


def fold_keepdims(graph: torch.fx.Graph, captured: Captured) -> None:
    """Fold every such pair of a lowered graph."""
    for node in list(graph.nodes):
        if node.target not in RESHAPES:
            continue
        reduced = node.args[0]
        pair = reduced.target in REDUCTIONS and list(reduced.users) == [node]
        if pair and _drops_reduced(reduced, node, captured):
            _fold(reduced, node)


def _drops_reduced(
    reduced: torch.fx.Node, node: torch.fx.Node, captured: Captured
) -> bool:
    """Whether `node` drops the axes that were reduced, and does nothing else."""
    before, after = reduced.meta.get("val"), node.meta.get("val")
    axis: Any = reduced.kwargs.get("axis")
    if axis is None or not reduced.kwargs.get("keepdims"):
        return False
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    gone = {a % before.ndim for a in ([axis] if isinstance(axis, int) else axis)}
    kept = [size for a, size in enumerate(before.shape) if a not in gone]
    return [captured.expr(s) for s in after.shape] == [captured.expr(s) for s in kept]


def _fold(reduced: torch.fx.Node, node: torch.fx.Node) -> None:
    reduced.kwargs = {k: v for k, v in reduced.kwargs.items() if k != "keepdims"}
    reduced.meta["forward_args"] = argument_names(node)
    reduced.meta.update(hint=node.meta["hint"], val=node.meta["val"])
    node.replace_all_uses_with(reduced)
    node.graph.erase_node(node)


def argument_names(node: torch.fx.Node) -> list[tuple[str, str]]:
    """[(module path, argument)]: as what forward of which modules receives this value."""
    if "forward_args" in node.meta:
        return node.meta["forward_args"]
    origin = node.meta.get("origin")
    if origin is None or "val" not in node.meta:
        return []
    return origin.meta.get("forward_args", [])
