"""Pooling that `mlx.nn` has no layer for. Arrays are [N, *S, C]."""

from __future__ import annotations

import math

import mlx.core as mx


def windows(
    x: mx.array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> mx.array:
    """The windows of an array: [N, *S, C] -> [N, *out, prod(kernel), C]."""
    batch, *sizes, channels = x.shape
    strides = [channels]
    for size in reversed(sizes):
        strides.insert(0, strides[0] * size)
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(sizes, kernel, stride, dilation)
    ]
    steps = [step * s for step, s in zip(strides[1:], stride)]
    taps = [step * d for step, d in zip(strides[1:], dilation)]
    x = mx.as_strided(
        x, (batch, *out, *kernel, channels), (strides[0], *steps, *taps, 1)
    )
    return x.reshape(batch, *out, math.prod(kernel), channels)


def pool_padding(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> list[tuple[int, int]]:
    """Padding before and after each axis: the last window of `ceil_mode` fits."""
    pads = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation):
        span = d * (k - 1) + 1
        last = (n + 2 * p - span) // s * s
        if ceil_mode and last < n + 2 * p - span and last + s < n + p:
            last += s
        pads.append((p, max(p, last + span - n - p)))
    return pads


def max_pool(
    x: mx.array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> mx.array:
    """Max pooling with dilation and `ceil_mode`: [N, *S, C] -> [N, *out, C]."""
    pads = pool_padding(x.shape[1:-1], kernel, stride, padding, dilation, ceil_mode)
    x = mx.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-math.inf)
    return mx.max(windows(x, kernel, stride, dilation), axis=-2)


def max_pool_indices(
    x: mx.array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> mx.array:
    """Where in the flattened *S each maximum of `max_pool` is: [N, *out, C]."""
    sizes = x.shape[1:-1]
    pads = pool_padding(sizes, kernel, stride, padding, dilation, ceil_mode)
    pads = [(0, 0), *pads, (0, 0)]
    places = mx.arange(math.prod(sizes)).reshape(1, *sizes, 1)
    places = windows(mx.pad(places, pads), kernel, stride, dilation)
    x = windows(mx.pad(x, pads, constant_values=-math.inf), kernel, stride, dilation)
    best = mx.argmax(x, axis=-2, keepdims=True).astype(mx.int32)
    return mx.take_along_axis(mx.broadcast_to(places, x.shape), best, -2).squeeze(-2)


def avg_pool(
    x: mx.array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> mx.array:
    """Average pooling, padding uncounted: [N, *S, C] -> [N, *out, C]."""
    once = (1,) * len(kernel)
    sizes = x.shape[1:-1]
    pads = pool_padding(sizes, kernel, stride, padding, once, ceil_mode)
    pads = [(0, 0), *pads, (0, 0)]
    total = windows(mx.pad(x, pads), kernel, stride, once).sum(axis=-2)
    counted = mx.ones((1, *sizes, 1), dtype=x.dtype)
    if count_include_pad:
        inner = [(0, 0), *((p, p) for p in padding), (0, 0)]
        counted = mx.pad(counted, inner, constant_values=1)
        pads = [(0, high - low) for low, high in pads]
    count = windows(mx.pad(counted, pads), kernel, stride, once).sum(axis=-2)
    return total / count


def sum_pool(
    x: mx.array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil_mode: bool = False,
) -> mx.array:
    """The sum of each window: [N, *S, C] -> [N, *out, C]."""
    once = (1,) * len(kernel)
    pads = pool_padding(x.shape[1:-1], kernel, stride, padding, once, ceil_mode)
    x = mx.pad(x, [(0, 0), *pads, (0, 0)])
    return windows(x, kernel, stride, once).sum(axis=-2)


def adaptive_avg_pool(x: mx.array, output_size: tuple[int, ...]) -> mx.array:
    """Average pooling to a given size: [N, *S, C] -> [N, *output_size, C]."""
    for axis, out in enumerate(output_size, start=1):
        n = x.shape[axis]
        if n == out:
            continue
        if n % out == 0:
            x = mx.unflatten(x, axis, (out, n // out)).mean(axis=axis + 1)
            continue
        bins = mx.arange(out)[:, None]
        start, stop = bins * n // out, ((bins + 1) * n + out - 1) // out
        place = mx.arange(n)
        inside = ((place >= start) & (place < stop)).astype(x.dtype)
        share = inside / (stop - start).astype(x.dtype)
        x = mx.moveaxis(mx.moveaxis(x, axis, -1) @ share.T, -1, axis)
    return x


def adaptive_windows(x: mx.array, output_size: tuple[int, ...]) -> mx.array:
    """Bins of adaptive pooling, filled with their last element: [N, *out, bin, C]."""
    count = len(output_size)
    for axis in range(count):
        n, out = x.shape[1 + 2 * axis], output_size[axis]
        bins = mx.arange(out)[:, None]
        start, stop = bins * n // out, ((bins + 1) * n + out - 1) // out
        width = max(((i + 1) * n + out - 1) // out - i * n // out for i in range(out))
        places = mx.minimum(start + mx.arange(width), stop - 1)
        x = mx.take(x, places, axis=1 + 2 * axis)
    outer = range(1, 2 * count, 2)
    inner = range(2, 2 * count + 1, 2)
    x = x.transpose(0, *outer, *inner, 2 * count + 1)
    return x.flatten(count + 1, -2)


def adaptive_max_pool(x: mx.array, output_size: tuple[int, ...]) -> mx.array:
    """Max pooling to a given size: [N, *S, C] -> [N, *out, C]."""
    return mx.max(adaptive_windows(x, output_size), axis=-2)


def adaptive_max_pool_indices(x: mx.array, output_size: tuple[int, ...]) -> mx.array:
    """Where in the flattened *S each maximum of `adaptive_max_pool` is."""
    sizes = x.shape[1:-1]
    places = mx.arange(math.prod(sizes)).reshape(1, *sizes, 1)
    places = adaptive_windows(places, output_size)
    x = adaptive_windows(x, output_size)
    best = mx.argmax(x, axis=-2, keepdims=True).astype(mx.int32)
    return mx.take_along_axis(mx.broadcast_to(places, x.shape), best, -2).squeeze(-2)
