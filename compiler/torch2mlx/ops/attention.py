"""Scaled dot product attention."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.scaled_dot_product_attention.default)
def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`mx.fast.scaled_dot_product_attention`, which wants [B, H, L, E].

    A boolean mask goes through a helper: where it allows a query nothing, MLX averages the values and
    PyTorch gives 0. An additive mask of -inf everywhere in a row gives nan.
    """
    if dropout_p:
        raise Refuse(
            f"argument `dropout_p`={dropout_p} is not mapped: MLX drops nothing"
        )
    if scale is None:
        scale = query.shape[-1] ** -0.5
    query, key, value, attn_mask, restore = _four_axes(query, key, value, attn_mask)
    if is_causal:
        attn_mask = _causal(query.shape[-2], key.shape[-2])
    if attn_mask is None or isinstance(attn_mask, str):
        mask = {} if attn_mask is None else {"mask": attn_mask}
        y = mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, **mask)
    elif attn_mask.dtype == mlx.core.bool_ and not is_causal:
        y = helpers.masked_attention(query, key, value, attn_mask, scale)
    else:
        if attn_mask.dtype != mlx.core.bool_:
            attn_mask = attn_mask.astype(query.dtype)
        y = mx.fast.scaled_dot_product_attention(
            query, key, value, scale=scale, mask=attn_mask
        )
    return restore(y)


def _causal(queries: Any, keys: Any) -> Any:
    """Query i sees keys 0..i; MLX's "causal" lets the last query see the last key instead."""
    try:
        if queries == keys:
            return "causal"
    except Refuse:
        pass  # the sizes may be equal or not
    return mx.tri(queries, keys, dtype=mlx.core.bool_)


def _four_axes(query: Any, key: Any, value: Any, mask: Any) -> Any:
    """The operands as [B, H, L, E], and what gives the result its shape back."""
    operands = (query, key, value)
    axes = max(x.ndim for x in operands)
    batches = [x.shape[0] if x.ndim == axes else 1 for x in operands]
    query, key, value = (
        x if x.ndim == axes else x[(None,) * (axes - x.ndim)] for x in operands
    )
    if axes == 4:
        query, key, value = _one_batch((query, key, value), batches)
        return query, key, value, mask, lambda y: y
    if axes == 3:
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        operands = (query[:, None], key[:, None], value[:, None])
        query, key, value = _one_batch(operands, batches)
        return query, key, value, mask, lambda y: y[:, 0]
    if axes == 2:
        new = (None, None)
        return query[new], key[new], value[new], mask, lambda y: y[0, 0]
    if any(
        _differ(a, b) for a, b in zip(query.shape[:-3], key.shape[:-3], strict=True)
    ):
        raise Refuse("attention that broadcasts more than one batch axis is not mapped")
    lead = query.shape[:-3]
    if mask is not None and mask.ndim > 3:
        sizes = (*lead, *mask.shape[mask.ndim - 3 :])
        mask = mx.broadcast_to(mask, sizes).flatten(0, -4)
    shape = (*query.shape[:-1], value.shape[-1])
    query, key, value = (x.flatten(0, -4) for x in (query, key, value))
    return query, key, value, mask, lambda y: y.reshape(shape)


def _one_batch(operands: tuple[Any, ...], batches: list[Any]) -> list[Any]:
    """The operands, those that have one batch for all repeated."""
    many = [size for size in batches if not (isinstance(size, int) and size == 1)]
    return [
        (
            mx.broadcast_to(x, (many[0], *x.shape[1:]))
            if many and _differ(many[0], size)
            else x
        )
        for x, size in zip(operands, batches, strict=True)
    ]


def _differ(size: Any, other: Any) -> bool:
    """Whether one of two sizes that broadcast is 1."""
    ones = [isinstance(s, int) and s == 1 for s in (size, other)]
    return ones[0] != ones[1]
