"""Leading axes of size 1, which broadcasting adds by itself, are not written.

p = unsqueeze(arange(n), 0); c = unsqueeze(arange(n), 1)     ->     p = arange(n); c = unsqueeze(arange(n), 1)
m = le(unsqueeze(p, 0), unsqueeze(c, 0))                            m = le(p, c)
y = where(m, scores, -inf)                                          y = where(m, scores, -inf)

Only of what depends on no input: positions, masks, rows of tables. The axes of images stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.passes.broadcasts import is_pointwise
from torch2mlx.passes.rewrite import (
    arguments,
    call,
    name_as,
    replace,
    same_shape,
    tensor_of,
    with_arguments,
)

aten = torch.ops.aten
Node = torch.fx.Node

NOTHING, WEIGHTS, INPUTS = range(3)
# Attention -> its argument that broadcasts
MASKS: dict[Any, str] = {
    aten.scaled_dot_product_attention.default: "attn_mask",
    ATTENTION: "mask",
}


def leading(captured: Captured) -> bool:
    """Drop the leading axes that elementwise operators and attention add to their operands."""
    changed = False
    sources: dict[Node, int] = {}
    for node in list(captured.graph.nodes):
        sources[node] = _source(captured, sources, node)
        new = None
        if node.target in MASKS:
            new = _attention(sources, node)
        elif is_pointwise(node):
            new = _pointwise(captured, sources, node)
        if new is not None:
            sources[new] = sources[node]
            replace(node, new)
            changed = True
    return changed


def _source(captured: Captured, sources: dict[Node, int], node: Node) -> int:
    """What a node depends on at most: on sizes only, on weights, or on inputs."""
    if node.op == "placeholder":
        return WEIGHTS if node.name in captured.weights else INPUTS
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return NOTHING if isinstance(node.meta.get("val"), torch.SymInt) else INPUTS
    for operand in node.all_input_nodes:
        if operand not in sources:
            sources[operand] = _source(captured, sources, operand)
    return max((sources[operand] for operand in node.all_input_nodes), default=NOTHING)


def _attention(sources: dict[Node, int], node: Node) -> Node | None:
    name = MASKS[node.target]
    mask = arguments(node)[name]
    if mask is None or sources[mask] == INPUTS or (short := _short(mask)) is mask:
        return None
    name_as(short, mask)
    return with_arguments(node, **{name: short})


def _pointwise(captured: Captured, sources: dict[Node, int], node: Node) -> Node | None:
    """The operator of operands without leading axes; where all lack them, the result gets them."""
    free = sources[node] != INPUTS
    shorter = {
        x: _short(x)
        for x in node.all_input_nodes
        if tensor_of(x) is not None
        and sources[x] != INPUTS
        and (sources[x] == NOTHING or free or _is_rows(x))
    }
    shorter = {x: short for x, short in shorter.items() if short is not x}
    if not shorter:
        return None
    own: Any = tensor_of(node)
    args, kwargs = map_arg((node.args, node.kwargs), lambda x: shorter.get(x, x))  # type: ignore[misc]
    made = [call(node, node.target, *args, **kwargs)]
    while free and made[-1].meta["val"].ndim < own.ndim:
        made.append(call(node, aten.unsqueeze.default, made[-1], 0))
    found: Any = tensor_of(made[-1])
    if found.dtype == own.dtype and same_shape(captured, found, own):
        for x, short in shorter.items():
            name_as(short, x)
        return made[-1]
    for new in reversed(made):
        captured.graph.erase_node(new)
    return None


def _is_rows(x: Node) -> bool:
    """Whether it is rows of a table, with further axes."""
    while x.target in (aten.unsqueeze.default, aten.slice.Tensor):
        (x,) = (n for n in x.all_input_nodes if tensor_of(n) is not None)
    is_table = x.op == "placeholder" or x.target is aten.embedding.default
    return is_table and tensor_of(x).ndim == 2  # type: ignore[union-attr]


def _short(x: Node) -> Node:
    """`x` without the leading axes that `unsqueeze` made, one axis at least; new calls go behind `x`."""
    base: Any = x
    places: list[int] = []
    while base.target is aten.unsqueeze.default:
        places.append(base.args[1] % base.meta["val"].ndim)
        base = base.args[0]
    ndim = base.meta["val"].ndim
    axes: list[bool] = [False] * ndim  # whether each axis is new
    for place in reversed(places):
        axes.insert(place, True)
    count = axes.index(False) if ndim else 0
    if count == 0:
        return x
    short = base
    for place, new in enumerate(axes[count:]):
        if new:
            short = call(x, aten.unsqueeze.default, short, place)
    return short
