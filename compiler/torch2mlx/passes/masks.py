"""Attention masks, as small as they can be.

q, k = arange(n)[:, None], arange(n)                    ->   attention(..., attn_mask=None,
mask = expand(ones(bool) & (k <= q), [b, 1, n, n])               is_causal=True)
attention(..., attn_mask=mask)
padding[arange(b)[:, None, None, None], arange(n)]      ->   padding[:, None, None, :]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.creation import broadcast, created
from torch2mlx.passes.rewrite import arguments, call, replace, tensor_of, with_arguments
from torch2mlx.passes.scalars import WHERES, number_of

aten = torch.ops.aten

Rule = Callable[[Captured, Formulas, torch.fx.Node], torch.fx.Node | None]


def masks(captured: Captured) -> bool:
    """Replace masks, and reads by index, by what their formulas say."""
    changed = False
    known = Formulas(captured)
    for node in list(captured.graph.nodes):
        rule = RULES.get(node.target)
        new = rule(captured, known, node) if rule is not None else None
        if new is not None:
            replace(node, new)
            changed = True
    return changed


def _compared(
    captured: Captured, known: Formulas, node: torch.fx.Node
) -> torch.fx.Node | None:
    """A comparison that is always the same."""
    found = known.of(node)
    if found is None or found.constant is None:
        return None
    return created(captured, node, found, node.meta["val"].shape, torch.bool)


def _combined(neutral: int) -> Rule:
    """`and` with what is always true, `or` with what is never, and either with itself."""

    def rule(
        captured: Captured, known: Formulas, node: torch.fx.Node
    ) -> torch.fx.Node | None:
        x, y = node.args[:2]
        value = node.meta["val"]
        if value.dtype != torch.bool or tensor_of(x) is None or tensor_of(y) is None:
            return None
        for kept, other in ((x, y), (y, x)):
            same = kept is other or known.constant(other) == neutral
            if same and tensor_of(kept).dtype == torch.bool:  # type: ignore[union-attr]
                return broadcast(captured, node, kept, value.shape)  # type: ignore[arg-type]
        return _compared(captured, known, node)

    return rule


def _where(
    captured: Captured, known: Formulas, node: torch.fx.Node
) -> torch.fx.Node | None:
    condition, *choices = node.args[:3]
    chosen = known.constant(condition)
    if chosen is None:
        return None
    x, value = choices[0 if chosen == 1 else 1], node.meta["val"]
    own = tensor_of(x)
    if own is None or own.dtype != value.dtype:
        return None
    return broadcast(captured, node, x, value.shape)  # type: ignore[arg-type]


def _masked_fill(
    captured: Captured, known: Formulas, node: torch.fx.Node
) -> torch.fx.Node | None:
    x, mask = node.args[:2]
    if known.constant(mask) != 0:
        return None
    return broadcast(captured, node, x, node.meta["val"].shape)  # type: ignore[arg-type]


def _index(
    captured: Captured, known: Formulas, node: torch.fx.Node
) -> torch.fx.Node | None:
    """`x[arange(n)[:, None], arange(m)]` of all rows and columns is `x`, with axes moved and added."""
    x, indices = node.args[:2]
    own, value = tensor_of(x), node.meta["val"]
    assert isinstance(indices, list | tuple)
    if own is None or not isinstance(x, torch.fx.Node):
        return None
    if len(indices) != own.ndim or any(tensor_of(i) is None for i in indices):
        return None
    # For each axis of x, the axis of the result that runs along it
    places: list[int] = []
    for axis, index in enumerate(indices):
        formula, positions = known.of(index), tensor_of(index)
        assert positions is not None
        moving = [a for a, s in enumerate(formula.steps) if s != 0] if formula else []
        if formula is None or formula.sign or formula.offset != 0 or len(moving) != 1:
            return None
        if formula.steps[moving[0]] != 1:
            return None
        if captured.expr(positions.shape[moving[0]]) != captured.expr(own.shape[axis]):
            return None
        places.append(moving[0] + value.ndim - positions.ndim)
    if len(set(places)) != len(places):
        return None
    if places != sorted(places):
        order = sorted(range(own.ndim), key=places.__getitem__)
        x = call(node, aten.permute.default, x, order)
    for axis in range(value.ndim):
        if axis not in places:
            x = call(node, aten.unsqueeze.default, x, axis)
    return broadcast(captured, node, x, value.shape)


def attention_mask(
    captured: Captured, known: Formulas, node: torch.fx.Node
) -> torch.fx.Node | None:
    """A mask that is all true, or adds 0, is none; true up to the diagonal it is causal."""
    given = arguments(node)
    mask = given["attn_mask"]
    if mask is None:
        return None
    if mask.meta["val"].dtype != torch.bool and number_of(mask) == 0:
        _decide(captured, node, "it adds 0, so it is dropped")
        return with_arguments(node, attn_mask=None)
    found = known.of(mask) if tensor_of(mask).dtype == torch.bool else None  # type: ignore[union-attr]
    if found is not None and found.constant == 1:
        _decide(captured, node, "it allows everything, so it is dropped")
        return with_arguments(node, attn_mask=None)
    causal = (*[0] * (mask.meta["val"].ndim - 2), 1, -1)
    if found is not None and found.sign and (found.offset, found.steps) == (0, causal):
        _decide(
            captured, node, "it allows what comes before, so `is_causal` says the same"
        )
        return with_arguments(node, attn_mask=None, is_causal=True)
    return None


def _decide(captured: Captured, node: torch.fx.Node, why: str) -> None:
    decision = Decision("simplified", "attention mask", why, source_line(node))
    if decision not in captured.decisions:
        captured.decisions.append(decision)


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        [
            getattr(getattr(aten, name), overload)
            for name in ("ge", "gt", "le", "lt", "eq", "ne")
            for overload in ("Tensor", "Scalar")
        ],
        _compared,
    ),
    aten.bitwise_not.default: _compared,
    aten.logical_not.default: _compared,
    **dict.fromkeys(
        [aten.bitwise_and.Tensor, aten.__and__.Tensor, aten.logical_and.default],
        _combined(1),
    ),
    **dict.fromkeys(
        [aten.bitwise_or.Tensor, aten.__or__.Tensor, aten.logical_or.default],
        _combined(0),
    ),
    **dict.fromkeys(WHERES, _where),
    aten.masked_fill.Scalar: _masked_fill,
    aten.index.Tensor: _index,
    aten.scaled_dot_product_attention.default: attention_mask,
}
