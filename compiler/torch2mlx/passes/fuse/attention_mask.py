"""Masks that forbid by a number, where every query sees some key: what they forbid is enough.

m = where(le(k, q), 0.0, -3.4e38)                  ->   y = scaled_dot_product_attention(q, k, v, is_causal=True)
y = scaled_dot_product_attention(q, k, v, m)

m = and(le(k, q), gt(k, sub(q, 4)))                ->   y = attention(q, k, v, m)
y = scaled_dot_product_attention(q, k, v, m)

`attention` may take it for granted that every query sees some key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
from torch2mlx.passes.scalars import number_of
from torch2mlx.passes.sizes import is_nonnegative
from torch2mlx.passes.views import EXPANSIONS

aten = torch.ops.aten

SDPA = aten.scaled_dot_product_attention.default
CONJUNCTIONS = {
    aten.bitwise_and.Tensor,
    aten.__and__.Tensor,
    aten.logical_and.default,
}
# Comparison with a limit -> how far below it the largest number is
ABOVE: dict[Any, int] = {
    aten.le.Scalar: 0,
    aten.le.Tensor: 0,
    aten.lt.Scalar: 1,
    aten.lt.Tensor: 1,
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
    if not some_key(captured, known, allowed):
        raise Declined("it depends on values whether a query sees any key")
    new = with_arguments(root, attn_mask=allowed)
    simpler = attention_mask(captured, known, new)
    if simpler is not None:
        return simpler
    q, k, v = (given[name] for name in ("query", "key", "value"))
    if q.meta["val"].ndim != 4 or given["dropout_p"]:
        raise Declined("it is not attention over [B, H, L, D]")
    return call(root, ATTENTION, q, k, v, allowed, given["scale"])


def some_key(captured: Captured, known: Formulas, mask: torch.fx.Node) -> bool:
    """Whether query i may see key i, which exists, for every i."""
    sizes = mask.meta["val"].shape
    if len(sizes) < 2:
        return False
    queries, keys = (captured.expr(size) for size in sizes[-2:])
    if not is_nonnegative(keys - queries):
        return False
    return all(_on_diagonal(known, condition) for condition in _conditions(mask))


def _on_diagonal(known: Formulas, condition: torch.fx.Node) -> bool:
    """Whether a condition holds for query i and key i, for every i."""
    found = known.of(condition)
    if found is None:
        return condition.target in ABOVE and _is_near(known, condition)
    if found.constant == 1:
        return True
    steps = (0, 0, *found.steps)
    along = steps[-1] + steps[-2]
    if not found.sign or any(steps[:-2]):
        return False
    return is_nonnegative(found.offset) and is_nonnegative(along)


def _is_near(known: Formulas, condition: torch.fx.Node) -> bool:
    """Whether a condition is that keys are at most so far from their query."""
    distance, limit = condition.args[:2]
    if getattr(distance, "target", None) is not aten.abs.default:
        return False
    found, most = known.of(distance.args[0]), number_of(limit)  # type: ignore[union-attr]
    if found is None or found.sign or not isinstance(most, int):
        return False
    steps = (0, 0, *found.steps)
    if any(steps[:-2]) or steps[-1] + steps[-2] != 0:
        return False
    return is_nonnegative(most - ABOVE[condition.target] - abs(found.offset))


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
