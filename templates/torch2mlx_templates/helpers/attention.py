"""Attention with masks as PyTorch defines them."""

from __future__ import annotations

import mlx.core as mx


def masked_attention(
    q: mx.array, k: mx.array, v: mx.array, mask: mx.array, scale: float
) -> mx.array:
    """Attention [B, H, L, D] with a boolean mask; 0 where it allows nothing."""
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return mx.where(mx.any(mask, axis=-1, keepdims=True), y, mx.zeros((), y.dtype))
