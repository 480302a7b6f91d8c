"""Attention with masks as PyTorch defines them."""

from __future__ import annotations

import mlx.core as mx


def masked_attention(
    q: mx.array, k: mx.array, v: mx.array, mask: mx.array, scale: float
) -> mx.array:
    """Attention [B, H, L, D] with a boolean mask; 0 where it allows nothing."""
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return mx.where(mx.any(mask, axis=-1, keepdims=True), y, mx.zeros((), y.dtype))


def rotate_halves(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Rotary embedding of [..., D]: channel i turns with channel i + D / 2."""
    x1, x2 = mx.split(x, 2, axis=-1)
    return x * cos + mx.concatenate([-x2, x1], axis=-1) * sin


def rotate_pairs(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Rotary embedding of [..., D]: each channel turns with its neighbour."""
    turned = mx.stack([-x[..., 1::2], x[..., ::2]], axis=-1)
    return x * cos + turned.flatten(-2) * sin
