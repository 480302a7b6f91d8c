"""Queries that are scaled before they meet the keys.

y = scaled_dot_product_attention(transpose(mul(x, 0.35), 1, 2), k, v, scale=1.0)   ->
y = scaled_dot_product_attention(transpose(x, 1, 2), k, v, scale=0.35)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.passes.fuse.attention import rounded
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import Declined, Match, Node, dtype_of, fixed
from torch2mlx.passes.rewrite import arguments, with_arguments
from torch2mlx.passes.views import PERMUTES, RESHAPES

aten = torch.ops.aten

ATTENTIONS = {aten.scaled_dot_product_attention.default, ATTENTION}


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    given = arguments(root)
    query = given["query"]
    *_, scaled = (query, *_steps(query))
    if len(scaled.users) > 1 or scaled.target not in (aten.mul.Tensor, aten.div.Tensor):
        raise Declined("")
    x, number = scaled.args[:2]
    if type(number) not in (int, float) or not isinstance(x, torch.fx.Node):
        raise Declined("")
    size = fixed(captured, query.meta["val"].shape[-1])
    scale = given["scale"] or (size**-0.5 if size else None)
    if scale is None or not number or dtype_of(x) != dtype_of(scaled):
        raise Declined("the queries have another dtype or size before")
    factor = number if scaled.target is aten.mul.Tensor else 1 / number  # type: ignore[operator]
    scaled.replace_all_uses_with(x)
    return with_arguments(root, scale=rounded(captured, query, scale * factor))


def _steps(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """What nothing but the attention uses: views, and what they are views of."""
    while len(node.users) == 1:
        yield node
        if node.target not in RESHAPES | PERMUTES:
            return
        node = node.all_input_nodes[0]


QUERY_SCALE = Fusion("query_scale", frozenset(ATTENTIONS), Node(ATTENTIONS), _build)
