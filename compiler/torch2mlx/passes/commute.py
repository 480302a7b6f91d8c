"""Which operators commute with a rearrangement of their input, of its leading axes or of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sympy
import torch
import torch.fx

from torch2mlx.passes.index_map import Axes, IndexMap
from torch2mlx.passes.rewrite import call, keeps_shape

aten = torch.ops.aten

# Pointwise operators that PyTorch does not tag so
POINTWISE = {
    aten.dropout.default,
    aten.to.dtype,
    aten.hardswish.default,
}
# Position of the input along whose last axis they compute
ALONG_LAST = {
    aten.linear.default: 0,
    aten.matmul.default: 0,
    aten.mm.default: 0,
    aten.addmm.default: 1,
    aten.layer_norm.default: 0,
    aten.rms_norm.default: 0,
}
PRODUCTS = {
    aten.linear.default,
    aten.matmul.default,
    aten.mm.default,
    aten.addmm.default,
}


@dataclass(frozen=True)
class Commuting:
    """A node that may be computed before its input is rearranged.

    Attributes:
        x: The input.
        leading: Whether the last axis has to stay where it is.
    """

    x: torch.fx.Node
    leading: bool


def commuting(node: torch.fx.Node) -> Commuting | None:
    """How `node` commutes with a rearrangement of its one large input, if it does."""
    result = node.meta.get("val")
    arrays = [
        n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)
    ]
    if node.op != "call_function" or not arrays or not isinstance(result, torch.Tensor):
        return None
    if node.target in ALONG_LAST:
        return _along_last(node)
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    pointwise = torch.Tag.pointwise in node.target.tags or node.target in POINTWISE
    if not pointwise or node.target._schema.is_mutable:
        return None
    x = max(arrays, key=lambda n: n.meta["val"].ndim)
    ranks = [n.meta["val"].ndim for n in arrays if n is not x]
    if not keeps_shape(node, x) or any(rank > 1 for rank in ranks):
        return None
    return Commuting(x, leading=any(ranks)) if result.ndim > 1 else None


def _along_last(node: torch.fx.Node) -> Commuting | None:
    position = ALONG_LAST[node.target]  # type: ignore[index]
    x, second = node.args[position : position + 2]
    x_rank, rank = _rank(x), _rank(second)
    if not isinstance(x, torch.fx.Node) or x_rank < 2 or node.kwargs:
        return None
    if node.args.count(x) > 1:
        return None
    if node.target in PRODUCTS:
        fits = rank == 2 and (position == 0 or _rank(node.args[0]) == 1)
    else:
        fits = isinstance(second, list | tuple) and len(second) == 1
    return Commuting(x, leading=True) if fits else None


def _rank(value: object) -> int:
    tensor = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
    return tensor.ndim if isinstance(tensor, torch.Tensor) else -1


def generalise(node: torch.fx.Node) -> None:
    """Let a product of two matrices take any number of leading axes."""
    if node.target is aten.mm.default:
        node.target = aten.matmul.default
    elif node.target is aten.addmm.default:
        bias, x, weight = node.args
        node.target = aten.linear.default
        node.args = (x, call(node, aten.t.default, weight), bias)


def split_leading(
    whole: IndexMap, last: sympy.Expr
) -> Iterator[tuple[IndexMap, IndexMap]]:
    """Ways to write `whole` as a map that leaves the leading axes in a simple form, and one of these axes.

    Args:
        whole: The map of an operator's input.
        last: The size of the last axis of the operator's result, which stands in the second map.

    Yields:
        (the map before the operator, the map of its result).
    """
    kept = set(whole.target[-1])
    in_source = [
        tuple(a for a in axis if a not in kept)
        for axis in whole.source
        if not kept.issuperset(axis) or not axis
    ]
    in_target = [(a,) for axis in whole.target[:-1] for a in axis]
    for leading in (in_source, in_target):
        middle: Axes = (*leading, whole.target[-1])
        first = IndexMap(whole.source, middle, whole.sizes)
        fresh = max(whole.sizes, default=0) + 1
        sizes = {a: s for a, s in whole.sizes.items() if a not in kept} | {fresh: last}
        tail = (fresh,) if last != 1 else ()
        yield first.joined(), IndexMap(
            (*leading, tail), (*whole.target[:-1], tail), sizes
        ).joined()
