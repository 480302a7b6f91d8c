"""Branches and loops on the lowered graph: their calls, and which region each node is in."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from torch2mlx.capture.provenance import unsupported
from torch2mlx.ir.regions import (
    ITERATIONS,
    JOINS,
    choose,
    common,
    is_inside,
    region,
    uses,
)
from torch2mlx.lower.facade import Recorder, Traced
from torch2mlx.lower.registry import DTYPES

FLAT = JOINS | ITERATIONS


def lower_flat(recorder: Recorder, node: torch.fx.Node, args: Any, hint: Any) -> Any:
    """A `choose`, `loop`, `carried` or `element` of the captured graph.

    Args:
        recorder: Where the lowered call goes.
        node: The captured call.
        args: Its lowered arguments.
        hint: Gives the blank array for a fake tensor.
    """
    value = node.meta["val"]
    if node.target is choose:
        args = (args[0], *(_as(branch, value) for branch in args[1:]))
    elif node.target in ITERATIONS:
        args = (_as(args[0], value),)
    else:
        test, variables, following, *rest = args
        args = (test, variables, _as(following, value[: len(following)]), *rest)
    if isinstance(value, torch.Tensor):
        call = ("call_function", node.target, args, {}, hint(value))
        return recorder.append(*call, val=value)
    hints = [hint(v) for v in value]
    return recorder.append("call_function", node.target, args, {}, hints)


def _as(values: Any, like: Any) -> Any:
    """Arrays in the dtypes of fake tensors, since both branches and all rounds give the same."""
    if isinstance(values, list | tuple):
        return [_as(value, own) for value, own in zip(values, like, strict=True)]
    return values.astype(DTYPES[like.dtype]) if isinstance(values, Traced) else values


def settle_regions(graph: torch.fx.Graph) -> None:
    """Give each node a region in which all that take its result can see it.

    What a pass has let others use too is moved out of its branch.

    Raises:
        UnsupportedError: It belongs to the rounds of a loop, and is used after it.
    """
    wanted: dict[torch.fx.Node, list[Any]] = {}
    nodes = list(graph.nodes)
    if not any(node.target in FLAT for node in nodes):
        return
    for node in reversed(nodes):
        if _is_size(node):
            continue  # whoever needs it finds it where he is
        own = region(node)
        if node.target not in ITERATIONS:
            node.meta["region"] = common([own, *wanted.get(node, [])])
        for source, where in uses(node):
            wanted.setdefault(source, []).append(where)
    for node in nodes:
        for source, where in [] if _is_size(node) else uses(node):
            if not is_inside(where, region(source)):
                hint = "what a round of a loop computes is used outside of the loop"
                raise unsupported(node.meta["origin"], hint)


def _is_size(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("hint"), int | float)
