"""Reductions and scans that MLX lacks."""

from __future__ import annotations

import mlx.core as mx


def _last_index(hits: mx.array, axis: int) -> mx.array:
    """For each position, the last index up to it (int32) where `hits` is set."""
    shape = [-1 if i == axis % hits.ndim else 1 for i in range(hits.ndim)]
    positions = mx.arange(hits.shape[axis]).reshape(shape)
    return mx.cummax(mx.where(hits, positions, 0), axis=axis)


def cummax_indices(x: mx.array, axis: int) -> mx.array:
    """Where the running maximum along `axis` was met last (int32)."""
    return _last_index((x >= mx.cummax(x, axis=axis)) | mx.isnan(x), axis)


def cummin_indices(x: mx.array, axis: int) -> mx.array:
    """Where the running minimum along `axis` was met last (int32)."""
    return _last_index((x <= mx.cummin(x, axis=axis)) | mx.isnan(x), axis)


def histc(x: mx.array, bins: int, low: float = 0, high: float = 0) -> mx.array:
    """How many elements fall into each of `bins` equal parts of [low, high]."""
    x = x.reshape(-1)
    start, end = mx.array(low), mx.array(high)
    if low == high:
        start, end = mx.min(x), mx.max(x)
        same = (start == end).astype(x.dtype)
        start, end = start - same, end + same
    inside = (x >= start) & (x <= end)
    part = mx.floor((x - start) * bins / (end - start))
    part = mx.clip(mx.where(inside, part, 0), 0, bins - 1).astype(mx.int32)
    return mx.zeros((bins,)).at[part].add(inside.astype(mx.float32)).astype(x.dtype)


def diff(x: mx.array, n: int, axis: int) -> mx.array:
    """The n-th difference along `axis`; of booleans whether neighbours differ."""
    x = mx.moveaxis(x, axis, -1)
    for _ in range(n):
        later, earlier = x[..., 1:], x[..., :-1]
        x = later != earlier if x.dtype == mx.bool_ else later - earlier
    return mx.moveaxis(x, -1, axis)
