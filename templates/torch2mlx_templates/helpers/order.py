"""The middle, the k-th and the most frequent element of an axis."""

from __future__ import annotations

import mlx.core as mx


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
    indices = mx.stop_gradient(mx.where(any_nan, first, indices))
    return mx.take_along_axis(x, indices, axis=axis), indices


def lower_nanmedian(x: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    """The lower of the two middle elements that are not nan, and its index."""
    order = mx.argsort(x, axis=axis).astype(mx.int32)
    count = mx.sum(~mx.isnan(x), axis=axis, keepdims=True)
    middle = mx.maximum(count - 1, 0) // 2
    indices = mx.stop_gradient(mx.take_along_axis(order, middle, axis=axis))
    return mx.take_along_axis(x, indices, axis=axis), indices


def mode(x: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    """The most frequent element, the smallest of several, and its last index."""
    order = mx.moveaxis(mx.argsort(x, axis=axis).astype(mx.int32), axis, -1)
    y = mx.take_along_axis(mx.moveaxis(x, axis, -1), order, axis=-1)
    places = mx.arange(y.shape[-1])
    starts = mx.where(y != mx.roll(y, 1, -1), places, 0)
    runs = places - mx.cummax(starts, axis=-1)
    longest = mx.argmax(runs, axis=-1, keepdims=True).astype(mx.int32)
    indices = mx.take_along_axis(order, longest, axis=-1)
    indices = mx.stop_gradient(mx.moveaxis(indices, -1, axis))
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
    values = nanquantile(x, q, axis, interpolation)
    return mx.where(mx.any(mx.isnan(x), axis=axis), mx.nan, values)


def nanquantile(
    x: mx.array, q: mx.array | float, axis: int, interpolation: str = "linear"
) -> mx.array:
    """Quantiles along `axis` of the numbers that are not nan."""
    x = mx.sort(mx.moveaxis(x, axis, -1), axis=-1)
    q = mx.array(q)
    count = mx.sum(~mx.isnan(x), axis=-1, keepdims=True)
    place = q.reshape(-1) * mx.maximum(count - 1, 0)
    if interpolation in ("lower", "higher", "nearest"):
        rounding = {"lower": mx.floor, "higher": mx.ceil, "nearest": mx.round}
        place = rounding[interpolation](place)
    low, high = (f(place).astype(mx.int32) for f in (mx.floor, mx.ceil))
    values = mx.take_along_axis(x, mx.stop_gradient(low), axis=-1)
    if interpolation in ("linear", "midpoint"):
        above = mx.take_along_axis(x, mx.stop_gradient(high), axis=-1)
        weight = place - low if interpolation == "linear" else 0.5
        values = values + weight * (above - values)
    return mx.moveaxis(values, -1, 0).reshape(q.shape + x.shape[:-1])
