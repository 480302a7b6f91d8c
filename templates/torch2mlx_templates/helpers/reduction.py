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


def kth_smallest(x: mx.array, k: int, axis: int) -> tuple[mx.array, mx.array]:
    """The element that is k-th (from 0) in the sorted axis, and its index."""
    order = mx.argsort(x, axis=axis).astype(mx.int32)
    indices = mx.stop_gradient(mx.take(order, mx.array([k]), axis=axis))
    return mx.take_along_axis(x, indices, axis=axis), indices


def lower_median(x: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    """The lower of the two middle elements, and its index; a nan comes first."""
    _, indices = kth_smallest(x, (x.shape[axis] - 1) // 2, axis)
    nan = mx.isnan(x)
    any_nan = mx.any(nan, axis=axis, keepdims=True)
    first = mx.argmax(nan, axis=axis, keepdims=True).astype(mx.int32)
    indices = mx.where(any_nan, first, indices)
    return mx.take_along_axis(x, indices, axis=axis), indices


def quantile(
    x: mx.array, q: mx.array | float, axis: int, interpolation: str = "linear"
) -> mx.array:
    """Quantiles along `axis`; the axes of `q` come first in the result.

    Args:
        x: Numbers; where one is nan the result is nan.
        q: One fraction, or an array of them.
        axis: The axis that is reduced.
        interpolation: "linear", "lower", "higher", "nearest" or "midpoint".
    """
    y = mx.moveaxis(mx.sort(x, axis=axis), axis, 0)
    position = mx.array(q) * (y.shape[0] - 1)
    if interpolation in ("lower", "higher", "nearest"):
        rounding = {"lower": mx.floor, "higher": mx.ceil, "nearest": mx.round}
        position = rounding[interpolation](position)
    low = mx.floor(position).astype(mx.int32)
    high = mx.ceil(position).astype(mx.int32)
    weight = position - low
    if interpolation == "midpoint":
        weight = mx.full(position.shape, 0.5)
    weight = weight.reshape(position.shape + (1,) * (y.ndim - 1))
    values = y[low] + weight * (y[high] - y[low])
    return mx.where(mx.any(mx.isnan(y), axis=0), mx.array(float("nan")), values)


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
