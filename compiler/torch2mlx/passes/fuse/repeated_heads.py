"""Attention whose keys and values are repeated for groups of queries.

r = reshape(expand(unsqueeze(k, 2), [b, 2, 4, n, 8]), [b, 8, n, 8])   ->   y = attention(q, k, v, enable_gqa=True)
y = attention(q, r, ...)
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import Declined, Match, Node, fixed
from torch2mlx.passes.rewrite import arguments, call, with_arguments
from torch2mlx.passes.views import EXPANSIONS, RESHAPES

aten = torch.ops.aten

SDPA = aten.scaled_dot_product_attention.default


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    given = arguments(root)
    key, value = (_once(captured, given[name]) for name in ("key", "value"))
    if key is None or value is None:
        raise Declined("")
    if _heads(captured, key) != _heads(captured, value):
        raise Declined("keys and values are repeated differently")
    if root.target is ATTENTION:
        return call(
            root, ATTENTION, given["query"], key, value, given["mask"], given["scale"]
        )
    return with_arguments(root, key=key, value=value, enable_gqa=True)


def _once(captured: Captured, x: torch.fx.Node) -> torch.fx.Node | None:
    """What is repeated along the axis of heads, each head as often."""
    if x.meta["val"].ndim != 4:
        return None
    if x.target is aten.repeat_interleave.self_int:
        given = arguments(x)
        source = given["self"]
        return source if given["dim"] in (1, -3) else None
    if x.target not in RESHAPES or x.args[0].target not in EXPANSIONS:  # type: ignore[union-attr]
        return None
    wide = x.args[0]
    assert isinstance(wide, torch.fx.Node)
    added = wide.args[0]
    if (
        not isinstance(added, torch.fx.Node)
        or added.target is not aten.unsqueeze.default
    ):
        return None
    source = added.args[0]
    assert isinstance(source, torch.fx.Node)
    if added.args[1] not in (2, -3) or wide.meta["val"].ndim != 5:
        return None
    batch, heads, *rest = source.meta["val"].shape
    repeats = wide.meta["val"].shape[2]
    whole = [batch, heads, repeats, *rest]
    joined = [batch, heads * repeats, *rest]
    for node, sizes in ((wide, whole), (x, joined)):
        own = node.meta["val"].shape
        if [captured.expr(s) for s in own] != [captured.expr(s) for s in sizes]:
            return None
    return source


def _heads(captured: Captured, x: torch.fx.Node) -> int | None:
    return fixed(captured, x.meta["val"].shape[1])


REPEATED_HEADS = Fusion(
    "repeated_heads", frozenset({SDPA, ATTENTION}), Node({SDPA, ATTENTION}), _build
)
