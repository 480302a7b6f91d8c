"""Masks that forbid by a number, where every query sees some key: what they forbid is enough.

m = where(le(k, q), 0.0, -3.4e38)                  ->   y = scaled_dot_product_attention(q, k, v, is_causal=True)
y = scaled_dot_product_attention(q, k, v, m)

m = and(le(k, q), gt(k, sub(q, 4)))                ->   y = attention(q, k, v, m)
y = scaled_dot_product_attention(q, k, v, m)

`attention` may take it for granted that every query sees some key.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.fuse.attention import allowed_by
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import Declined, Match, Node
from torch2mlx.passes.masks import attention_mask
from torch2mlx.passes.rewrite import arguments, call, with_arguments
from torch2mlx.passes.sizes import is_nonnegative
from torch2mlx.passes.views import EXPANSIONS

aten = torch.ops.aten

SDPA = aten.scaled_dot_product_attention.default
CONJUNCTIONS = {
    aten.bitwise_and.Tensor,
    aten.__and__.Tensor,
    aten.logical_and.default,
}


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    given = arguments(root)
    mask = given["attn_mask"]
    if mask is None or given["is_causal"]:
        raise Declined("")
    allowed = mask if mask.meta["val"].dtype == torch.bool else allowed_by(mask)
    if allowed is None:
        raise Declined("the mask is added to the scores")
    known = Formulas(captured)
    if not _some_key(captured, known, allowed):
        raise Declined("it depends on values whether a query sees any key")
    new = with_arguments(root, attn_mask=allowed)
    simpler = attention_mask(captured, known, new)
    if simpler is not None:
        return simpler
    q, k, v = (given[name] for name in ("query", "key", "value"))
    if q.meta["val"].ndim != 4 or given["dropout_p"]:
        raise Declined("it is not attention over [B, H, L, D]")
    return call(root, ATTENTION, q, k, v, allowed, given["scale"])


def _some_key(captured: Captured, known: Formulas, mask: torch.fx.Node) -> bool:
    """Whether query i may see key i, which exists, for every i."""
    sizes = mask.meta["val"].shape
    if len(sizes) < 2:
        return False
    queries, keys = (captured.expr(size) for size in sizes[-2:])
    if not is_nonnegative(keys - queries):
        return False
    for condition in _conditions(mask):
        found = known.of(condition)
        if found is None:
            return False
        if found.constant == 1:
            continue
        steps = (0, 0, *found.steps)
        along = steps[-1] + steps[-2]
        if not found.sign or any(steps[:-2]):
            return False
        if not (is_nonnegative(found.offset) and is_nonnegative(along)):
            return False
    return True


def _conditions(mask: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """The parts that have to hold all."""
    if mask.target in CONJUNCTIONS:
        for operand in mask.args[:2]:
            assert isinstance(operand, torch.fx.Node)
            yield from _conditions(operand)
    elif mask.target in EXPANSIONS:
        (source,) = mask.all_input_nodes[:1]
        yield from _conditions(source)
    else:
        yield mask


ATTENTION_MASK = Fusion("attention_mask", frozenset({SDPA}), Node({SDPA}), _build)
