"""Interpolation and sampling of images. Arrays are [N, *S, C]."""

from __future__ import annotations

import itertools

import mlx.core as mx

from torch2mlx_templates.helpers.pooling import windows


def resampled_sizes(
    x: mx.array, size: tuple[int, ...] | None, scale: tuple[float, ...] | None
) -> list[tuple[int, int, int, float]]:
    """(axis, size, new size, old step per new step) of each spatial axis."""
    sizes = x.shape[1:-1]
    new = size or tuple(int(n * s) for n, s in zip(sizes, scale or ()))
    steps = [1 / s for s in scale] if scale else [n / m for n, m in zip(sizes, new)]
    return list(zip(range(1, x.ndim - 1), sizes, new, steps))


def interpolate_nearest(
    x: mx.array,
    size: tuple[int, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    exact: bool = False,
) -> mx.array:
    """Nearest neighbours by size or scale: [N, *S, C] -> [N, *size, C].

    The neighbour is the one below, with `exact` the one nearest to the centre.
    """
    for axis, n, out, step in resampled_sizes(x, size, scale):
        place = mx.floor((mx.arange(out) + (0.5 if exact else 0.0)) * step)
        x = mx.take(x, mx.minimum(place.astype(mx.int32), n - 1), axis)
    return x


def interpolate_linear(
    x: mx.array,
    size: tuple[int, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
) -> mx.array:
    """Linear interpolation by size or scale: [N, *S, C] -> [N, *size, C]."""
    for axis, n, out, step in resampled_sizes(x, size, scale):
        place = resampled_places(n, out, step, align_corners)
        place = mx.maximum(place, 0)
        low = mx.minimum(mx.floor(place), n - 1)
        share = (place - low).astype(x.dtype)
        share = share.reshape(-1, *[1] * (x.ndim - axis - 1))
        low = low.astype(mx.int32)
        first, second = mx.take(x, low, axis), mx.take(
            x, mx.minimum(low + 1, n - 1), axis
        )
        x = first * (1 - share) + second * share
    return x


def interpolate_cubic(
    x: mx.array,
    size: tuple[int, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
) -> mx.array:
    """Cubic convolution (a = -0.75) by size or scale: [N, *S, C] -> [N, *size, C]."""
    for axis, n, out, step in resampled_sizes(x, size, scale):
        place = resampled_places(n, out, step, align_corners)
        low = mx.floor(place)
        taps = []
        for tap in range(-1, 3):
            share = cubic_kernel(place - low - tap, -0.75).astype(x.dtype)
            index = mx.clip(low + tap, 0, n - 1).astype(mx.int32)
            share = share.reshape(-1, *[1] * (x.ndim - axis - 1))
            taps.append(mx.take(x, index, axis) * share)
        x = sum(taps[1:], taps[0])
    return x


def interpolate_antialiased(
    x: mx.array,
    size: tuple[int, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    cubic: bool = False,
) -> mx.array:
    """Linear or cubic (a = -0.5) interpolation with a filter as wide as a new pixel."""
    for axis, n, out, step in resampled_sizes(x, size, scale):
        if align_corners:
            step = (n - 1) / (out - 1) if out > 1 else 0.0
        wide = max(step, 1.0)
        reach = (2.0 if cubic else 1.0) * wide
        centre = (mx.arange(out)[:, None] + 0.5) * step
        place = mx.arange(n)
        start = mx.maximum(mx.floor(centre - reach + 0.5), 0)
        stop = mx.minimum(mx.floor(centre + reach + 0.5), n)
        offset = mx.abs(place - centre + 0.5) / wide
        share = cubic_kernel(offset, -0.5) if cubic else mx.maximum(1 - offset, 0)
        share = mx.where((place >= start) & (place < stop), share, 0)
        share = (share / mx.sum(share, axis=1, keepdims=True)).astype(x.dtype)
        x = mx.moveaxis(mx.moveaxis(x, axis, -1) @ share.T, -1, axis)
    return x


def resampled_places(n: int, out: int, step: float, align_corners: bool) -> mx.array:
    """Where the centres of `out` new pixels lie among `n` old ones."""
    if align_corners:
        return mx.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
    return (mx.arange(out) + 0.5) * step - 0.5


def cubic_kernel(distance: mx.array, a: float) -> mx.array:
    """The weight of a pixel at a distance, by cubic convolution."""
    d = mx.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return mx.where(d <= 1, near, mx.where(d < 2, far, 0))


def grid_sample(
    x: mx.array,
    grid: mx.array,
    mode: str = "bilinear",
    padding: str = "zeros",
    align_corners: bool = False,
) -> mx.array:
    """The values of an image at the places that a grid names.

    Args:
        x: The image [N, *S, C] with two or three spatial axes.
        grid: Places [N, *out, 2 or 3] from -1 to 1, the last spatial axis first.
        mode: "bilinear", "nearest" or "bicubic".
        padding: What lies outside: "zeros", "border" or "reflection".
        align_corners: Whether -1 and 1 are the centres of the outer pixels.

    Returns:
        [N, *out, C].
    """
    sizes = x.shape[1:-1]
    places = []
    for axis, n in enumerate(reversed(sizes)):
        place = grid[..., axis]
        place = (
            (place + 1) * (n - 1) / 2 if align_corners else ((place + 1) * n - 1) / 2
        )
        if mode != "bicubic":
            place = inside(place, n, padding, align_corners)
        places.insert(0, place)
    if mode == "nearest":
        return pixels(x, [mx.round(p) for p in places])
    lows = [mx.floor(p) for p in places]
    if mode == "bicubic":
        taps = {
            t: [cubic_kernel(p - w - t, -0.75) for p, w in zip(places, lows)]
            for t in range(-1, 3)
        }
    else:
        taps = {
            t: [mx.abs(1 - t - (p - w)) for p, w in zip(places, lows)] for t in (0, 1)
        }
    total = mx.zeros((), x.dtype)
    for corner in itertools.product(taps, repeat=len(sizes)):
        at, share = [], mx.ones((), x.dtype)
        for axis, tap in enumerate(corner):
            place = lows[axis] + tap
            if mode == "bicubic":
                place = inside(place, sizes[axis], padding, align_corners)
            at.append(place)
            share = share * taps[tap][axis]
        total = total + pixels(x, at) * share[..., None]
    return total


def inside(place: mx.array, n: int, padding: str, align_corners: bool) -> mx.array:
    """Places outside an axis of `n` pixels moved in, as the padding asks."""
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, span = (0.0, n - 1) if align_corners else (-0.5, n)
        if span == 0:
            return mx.zeros_like(place)
        away = mx.abs(place - low)
        extra = mx.remainder(away, 2 * span)
        place = mx.minimum(extra, 2 * span - extra) + low
    return mx.clip(place, 0, n - 1)


def pixels(x: mx.array, places: list[mx.array]) -> mx.array:
    """x[n, *places], 0 outside: places [N, *out] each, result [N, *out, C]."""
    valid, index = mx.array(True), []
    for place, n in zip(places, x.shape[1:-1]):
        valid = valid & (place >= 0) & (place <= n - 1)
        place = mx.stop_gradient(mx.clip(place, 0, n - 1))
        index.append(place.astype(mx.int32))
    batch = mx.arange(x.shape[0]).reshape(-1, *[1] * (places[0].ndim - 1))
    return mx.where(valid[..., None], x[(batch, *index)], 0)


def affine_grid(
    theta: mx.array, size: tuple[int, ...], align_corners: bool
) -> mx.array:
    """The places [N, *S, d] that an affine map [N, d, d + 1] gives for an image."""
    axes = []
    for n in reversed(size[2:]):
        end = 1.0 if align_corners else 1 - 1 / n
        axes.append(mx.linspace(-end, end, n) if n > 1 else mx.zeros((1,)))
    grid = mx.meshgrid(*reversed(axes), indexing="ij")
    points = mx.stack([*reversed(grid), mx.ones_like(grid[0])], axis=-1)
    flat = points.reshape(1, -1, points.shape[-1]).astype(theta.dtype)
    return (flat @ theta.swapaxes(1, 2)).reshape(size[0], *points.shape[:-1], -1)


def unfold(
    x: mx.array,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    stride: tuple[int, int],
) -> mx.array:
    """The windows of an image as columns: [N, H, W, C] -> [N, C * kH * kW, windows]."""
    x = mx.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    x = windows(x, kernel, stride, dilation).flatten(1, 2)
    return x.transpose(0, 3, 2, 1).flatten(1, 2)


def fold(
    x: mx.array,
    size: tuple[int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    stride: tuple[int, int],
) -> mx.array:
    """Columns [N, C * kH * kW, L] added up where they came from: [N, H, W, C]."""
    (height, width), (rows, columns) = size, kernel
    padded = (height + 2 * padding[0], width + 2 * padding[1])
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, d, s in zip(padded, kernel, dilation, stride)
    ]
    x = x.reshape(x.shape[0], -1, rows, columns, *out).transpose(0, 2, 4, 3, 5, 1)
    y = mx.zeros((x.shape[0], *padded, x.shape[-1]), dtype=x.dtype)
    at_row = mx.arange(rows)[:, None] * dilation[0] + mx.arange(out[0]) * stride[0]
    at_column = (
        mx.arange(columns)[:, None] * dilation[1] + mx.arange(out[1]) * stride[1]
    )
    y = y.at[:, at_row[:, :, None, None], at_column].add(x)
    return y[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def pixel_shuffle(x: mx.array, factor: int) -> mx.array:
    """Channels become pixels: [N, H, W, C * f * f] -> [N, H * f, W * f, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // factor**2, factor, factor)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * factor, width * factor, -1)


def pixel_unshuffle(x: mx.array, factor: int) -> mx.array:
    """Pixels become channels: [N, H * f, W * f, C] -> [N, H, W, C * f * f]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).flatten(3)
