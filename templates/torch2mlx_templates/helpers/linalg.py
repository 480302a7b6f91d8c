"""Linear algebra that MLX has not."""

from __future__ import annotations

import math

import mlx.core as mx


def integer_matmul(a: mx.array, b: mx.array) -> mx.array:
    """`a @ b` for integers: [..., n, k] and [..., k, m], or a vector on either side."""
    rows = a if a.ndim > 1 else a[None]
    columns = b if b.ndim > 1 else b[:, None]
    y = mx.sum(rows[..., None] * columns[..., None, :, :], axis=-2)
    y = y if b.ndim > 1 else y[..., 0]
    return y if a.ndim > 1 else y[..., 0, :] if b.ndim > 1 else y[..., 0]


def vector_norm(x: mx.array, p: float, axis: int, keepdims: bool = False) -> mx.array:
    """The p-norm along one axis."""
    x = mx.abs(x)
    if p == 0:
        return mx.sum((x != 0).astype(x.dtype), axis=axis, keepdims=keepdims)
    if p == math.inf:
        return mx.max(x, axis=axis, keepdims=keepdims)
    if p == -math.inf:
        return mx.min(x, axis=axis, keepdims=keepdims)
    return mx.sum(x**p, axis=axis, keepdims=keepdims) ** (1 / p)


def spectral_norm(
    x: mx.array, ord: int | str, axes: tuple[int, int], keepdims: bool
) -> mx.array:
    """The largest (2), smallest (-2) or sum ("nuc") of the singular values."""
    reduce = {2: mx.max, -2: mx.min, "nuc": mx.sum}[ord]
    others = [axis for axis in range(x.ndim) if axis not in axes]
    matrices = x.transpose(*others, *axes)
    _, s, _ = mx.linalg.svd(matrices, stream=mx.cpu)
    y = reduce(s, axis=-1)
    return mx.expand_dims(y, sorted(axes)) if keepdims else y


def pinv(x: mx.array, atol: float, rtol: float) -> mx.array:
    """The pseudo-inverse [..., n, m] of [..., m, n]; small singular values are 0."""
    u, s, vt = mx.linalg.svd(x, stream=mx.cpu)
    rank = s.shape[-1]
    largest = mx.max(s, axis=-1, keepdims=True)
    used = s > mx.maximum(atol, rtol * largest)
    inverse = mx.where(used, 1 / mx.where(used, s, 1), 0)
    v = vt[..., :rank, :].swapaxes(-1, -2)
    return (v * inverse[..., None, :]) @ u[..., :rank].swapaxes(-1, -2)


def cross(a: mx.array, b: mx.array, axis: int) -> mx.array:
    """The cross product of vectors of three along one axis; the others broadcast."""
    after = mx.array([1, 2, 0])
    before = mx.array([2, 0, 1])
    first = mx.take(a, after, axis) * mx.take(b, before, axis)
    return first - mx.take(a, before, axis) * mx.take(b, after, axis)
