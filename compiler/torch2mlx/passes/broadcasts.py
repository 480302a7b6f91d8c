"""Expand late or never: elementwise operators and attention masks broadcast by themselves.

m = where(expand(mask, [b, 1, n, n]), 0.0, -1e9)     ->     m = where(mask, 0.0, -1e9)
y = add(scores, m)                                          y = add(scores, m)
"""

from __future__ import annotations

import torch
import torch.fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.passes.creation import broadcast
from torch2mlx.passes.overloads import is_tagged_pointwise
from torch2mlx.passes.rewrite import (
    arguments,
    call,
    name_as,
    replace,
    same_shape,
    tensor_of,
    with_arguments,
)
from torch2mlx.passes.views import EXPANSIONS

aten = torch.ops.aten

# Elementwise operators that PyTorch does not tag as such.
UNTAGGED = {
    aten.__and__.Tensor,
    aten.__or__.Tensor,
    aten.embedding.default,  # of its indices
    aten.to.dtype,
    aten.where.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
}


def broadcasts(captured: Captured) -> bool:
    """Drop each expansion that its users make by themselves, and move it past those that can wait."""
    changed = False
    for node in list(captured.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default:
            new = _attention(node)
        elif is_pointwise(node):
            new = _pointwise(captured, node)
        else:
            continue
        if new is not None:
            replace(node, new)
            changed = True
    return changed


def is_pointwise(node: torch.fx.Node) -> bool:
    """Whether a call computes each element alone, or looks up a row for each index."""
    if not isinstance(node.target, OpOverload) or tensor_of(node) is None:
        return False
    if node.target in UNTAGGED:
        return True
    if node.target is aten.index.Tensor:
        return _is_lookup(node)
    return is_tagged_pointwise(node.target)


def _is_lookup(node: torch.fx.Node) -> bool:
    """`weight[indices]`: elementwise in the indices."""
    x, indices = node.args[:2]
    assert isinstance(indices, list | tuple)
    return len(indices) == 1 and isinstance(x, torch.fx.Node) and _source(x) is x


def _source(operand: torch.fx.Node) -> torch.fx.Node:
    """What is expanded to `operand` without new axes; else `operand`."""
    while operand.target in EXPANSIONS:
        x = operand.args[0]
        assert isinstance(x, torch.fx.Node)
        if x.meta["val"].ndim != operand.meta["val"].ndim:
            break
        operand = x
    return operand


def _attention(node: torch.fx.Node) -> torch.fx.Node | None:
    mask = arguments(node)["attn_mask"]
    if mask is None or (source := _source(mask)) is mask:
        return None
    name_as(source, mask)
    return with_arguments(node, attn_mask=source)


def _pointwise(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """The operator of the sources; expanded where no other operand gives it its shape."""
    expanded = [n for n in node.all_input_nodes if _source(n) is not n]
    if not expanded or not isinstance(node.target, OpOverload):
        return None
    own = node.meta["val"]
    args, kwargs = map_arg((node.args, node.kwargs), _source)  # type: ignore[misc]
    new = call(node, node.target, *args, **kwargs)
    if same_shape(captured, new.meta["val"], own):
        for operand in expanded:
            name_as(_source(operand), operand)
        return new
    wide = broadcast(captured, node, new, own.shape)
    if wide is None:
        captured.graph.erase_node(new)
    return wide
