"""Numerical derivatives."""

from __future__ import annotations

import mlx.core as mx


def gradient(
    y: mx.array, spacing: mx.array | float, axis: int, edge_order: int = 1
) -> mx.array:
    """The derivative along `axis` by central differences.

    Args:
        y: Samples.
        spacing: The distance of neighbours, or their coordinates (n,).
        axis: The axis to derive along.
        edge_order: 1 or 2, the order of the one-sided differences at the ends.
    """
    y = mx.moveaxis(y, axis, -1)
    rise = y[..., 1:] - y[..., :-1]
    if isinstance(spacing, mx.array):
        steps = spacing[1:] - spacing[:-1]
        slopes = rise / steps
        near = steps[:-1] / (steps[:-1] + steps[1:])
        inner = (1 - near) * slopes[..., :-1] + near * slopes[..., 1:]
        start, end = near[:1], 1 - near[-1:]
    else:
        slopes = rise / spacing
        inner = (y[..., 2:] - y[..., :-2]) / (2 * spacing)
        start = end = 0.5
    first, last = slopes[..., :1], slopes[..., -1:]
    if edge_order == 2:
        first = first + start * (first - slopes[..., 1:2])
        last = last + end * (last - slopes[..., -2:-1])
    return mx.moveaxis(mx.concatenate([first, inner, last], axis=-1), -1, axis)
