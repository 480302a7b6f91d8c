"""Bags of vectors, and tables whose rows are kept short."""

from __future__ import annotations

import mlx.core as mx


def bag_of_each(starts: mx.array, length: int) -> mx.array:
    """The bag [length] that each position belongs to, where bags begin at `starts`."""
    begun = mx.arange(length)[:, None] >= starts
    return mx.sum(begun, axis=1) - 1


def bag_sums(vectors: mx.array, bags: mx.array, count: int) -> mx.array:
    """The sum of the vectors [N, D] of each of `count` bags, 0 for an empty one."""
    sums = mx.zeros((count, vectors.shape[1]), vectors.dtype)
    return sums.at[bags].add(vectors)


def bag_means(vectors: mx.array, bags: mx.array, count: int) -> mx.array:
    """The mean of the vectors [N, D] of each of `count` bags, 0 for an empty one."""
    sizes = bag_sums(mx.ones_like(vectors[:, :1]), bags, count)
    return bag_sums(vectors, bags, count) / mx.maximum(sizes, 1)


def bag_maxima(vectors: mx.array, bags: mx.array, count: int) -> mx.array:
    """The largest of the vectors [N, D] of each of `count` bags, 0 for an empty one."""
    lowest = mx.full((count, vectors.shape[1]), -mx.inf, vectors.dtype)
    sizes = bag_sums(mx.ones_like(vectors[:, :1]), bags, count)
    return mx.where(sizes > 0, lowest.at[bags].maximum(vectors), 0)


def renormalised(
    weight: mx.array, indices: mx.array, max_norm: float, p: float
) -> mx.array:
    """`weight` [N, D], its rows at `indices` scaled to a norm of at most `max_norm`."""
    norms = mx.linalg.norm(weight, p, axis=1, keepdims=True)
    scale = mx.where(norms > max_norm, max_norm / (norms + 1e-7), 1)
    used = mx.zeros(norms.shape, mx.bool_).at[indices.flatten()].maximum(True)
    return mx.where(used, weight * scale, weight)
