"""Histograms in several dimensions."""

from __future__ import annotations

import math

import mlx.core as mx


def histogram(
    x: mx.array,
    edges: list[mx.array],
    weight: mx.array | None = None,
    density: bool = False,
) -> mx.array:
    """How many points lie between the edges; the last bin has its upper edge too.

    Args:
        x: Points [N, D].
        edges: For each of the D axes the ascending edges [n + 1] of its n bins.
        weight: How much each point counts [N].
        density: Give fractions of the whole over the bins' volumes.
    """
    weight = mx.ones(x.shape[:1], x.dtype) if weight is None else weight
    cell = mx.zeros(x.shape[:1], mx.int32)
    for axis, edge in enumerate(edges):
        column, bins = x[:, axis, None], edge.shape[0] - 1
        place = mx.sum(column >= edge[:-1], axis=-1).astype(mx.int32) - 1
        inside = (column[:, 0] >= edge[0]) & (column[:, 0] <= edge[-1])
        weight = mx.where(inside, weight, 0)
        cell = cell * bins + mx.clip(place, 0, bins - 1)
    shape = [edge.shape[0] - 1 for edge in edges]
    counts = mx.zeros((math.prod(shape),), x.dtype).at[cell].add(weight).reshape(shape)
    if density:
        counts = counts / mx.sum(counts)
        for axis, edge in enumerate(edges):
            width = (edge[1:] - edge[:-1]).reshape([-1] + [1] * (len(shape) - axis - 1))
            counts = counts / width
    return counts


def bin_edges(x: mx.array, bins: int) -> mx.array:
    """Edges [bins + 1] of equal bins from the least to the greatest number in `x`."""
    low, high = (mx.min(x), mx.max(x)) if x.size else (mx.array(0.0), mx.array(1.0))
    half = mx.where(low == high, 0.5, 0.0)
    part = mx.arange(bins + 1) / bins
    return (low - half) * (1 - part) + (high + half) * part
