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


def integer_einsum(equation: str, *operands: mx.array) -> mx.array:
    """`mx.einsum` of integers; letters name all axes, also the result's."""
    inputs, output = equation.split("->")
    summed = sorted(set(inputs) - set(output) - {","})
    letters = [*output, *summed]
    product = mx.array(1)
    for names, x in zip(inputs.split(","), operands, strict=True):
        x = x.transpose([names.index(i) for i in letters if i in names])
        product = product * mx.expand_dims(
            x, [axis for axis, i in enumerate(letters) if i not in names]
        )
    return mx.sum(product, axis=tuple(range(len(output), len(letters))))


def vector_norm(x: mx.array, p: float, axis: int, keepdims: bool = False) -> mx.array:
    """The p-norm along one axis; where it is 0 the gradient is 0, too."""
    x = mx.abs(x)
    if p == 0:
        return mx.sum((x != 0).astype(x.dtype), axis=axis, keepdims=keepdims)
    if p == math.inf:
        return mx.max(x, axis=axis, keepdims=keepdims)
    if p == -math.inf:
        return mx.min(x, axis=axis, keepdims=keepdims)
    total = mx.sum(x**p, axis=axis, keepdims=keepdims)
    zero = total == 0
    return mx.where(zero, 0, mx.where(zero, 1, total) ** (1 / p))


def cdist(a: mx.array, b: mx.array, p: float = 2) -> mx.array:
    """The p-norms of differences of rows: [..., n, d], [..., m, d] -> [..., n, m]."""
    return vector_norm(a[..., :, None, :] - b[..., None, :, :], p, -1)


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


def significant(
    s: mx.array, size: int, atol: mx.array | float, rtol: mx.array | float | None
) -> mx.array:
    """Which singular values [..., k], descending, exceed `atol` and `rtol * largest`.

    Where `rtol` is None it is `size` roundings of float32, or 0 if `atol` is positive.
    """
    if rtol is None:
        rtol = mx.where(mx.array(atol) > 0, 0, size * 2.0**-23)
    return s > mx.maximum(atol, rtol * s[..., :1])


def pinv(
    x: mx.array, atol: mx.array | float = 0.0, rtol: mx.array | float | None = None
) -> mx.array:
    """The pseudo-inverse [..., n, m] of [..., m, n]; small singular values are 0."""
    u, s, vt = mx.linalg.svd(x, stream=mx.cpu)
    rank = s.shape[-1]
    used = significant(s, max(x.shape[-2:]), atol, rtol)
    inverse = mx.where(used, 1 / mx.where(used, s, 1), 0)
    v = mx.conj(vt[..., :rank, :].swapaxes(-1, -2))
    return (v * inverse[..., None, :]) @ mx.conj(u[..., :rank].swapaxes(-1, -2))


def matrix_rank(
    x: mx.array, atol: mx.array | float = 0.0, rtol: mx.array | float | None = None
) -> mx.array:
    """How many singular values of [..., m, n] are not small."""
    _, s, _ = mx.linalg.svd(x, stream=mx.cpu)
    return mx.sum(significant(s, max(x.shape[-2:]), atol, rtol), axis=-1)


def matrix_exp(x: mx.array) -> mx.array:
    """The matrix exponential of [..., n, n], of 1-norms up to 2**20.

    It is a Taylor series of x / 2**k, whose 1-norm is at most 3, squared k times.
    """
    eye = mx.eye(x.shape[-1], dtype=x.dtype)
    norm = mx.max(mx.sum(mx.abs(x), axis=-2), axis=-1)[..., None, None]
    squarings = mx.stop_gradient(mx.maximum(mx.ceil(mx.log2(norm / 3)), 0))
    x = x * 2.0**-squarings
    y = eye
    for k in range(18, 0, -1):
        y = eye + (x @ y) / k
    for step in range(20):
        y = mx.where(step < squarings, y @ y, y)
    return y


def cross(a: mx.array, b: mx.array, axis: int) -> mx.array:
    """The cross product of vectors of three along one axis; the others broadcast."""
    after = mx.array([1, 2, 0])
    before = mx.array([2, 0, 1])
    first = mx.take(a, after, axis) * mx.take(b, before, axis)
    return first - mx.take(a, before, axis) * mx.take(b, after, axis)


def gather_mm(
    x: mx.array, weight: mx.array, index: mx.array, sorted_indices: bool = False
) -> mx.array:
    """Rows `x` [*S, D], or matrices [*S, M, D], times those that `index` [*S] picks.

    Many are sorted by what is picked: MLX multiplies the rows of one matrix together.
    """
    if x.ndim == index.ndim + 1:
        return gather_mm(x[..., None, :], weight, index, sorted_indices).squeeze(-2)
    if mx.default_device() == mx.cpu and x.dtype != mx.float32:
        return x @ weight[index]
    if sorted_indices or index.size < 64:
        return mx.gather_mm(x, weight, rhs_indices=index, sorted_indices=sorted_indices)
    x = mx.broadcast_to(x, index.shape + x.shape[-2:]).reshape(-1, *x.shape[-2:])
    order = mx.stop_gradient(mx.argsort(index.flatten()))
    matrices = index.flatten()[order]
    y = mx.gather_mm(x[order], weight, rhs_indices=matrices, sorted_indices=True)
    y = y[mx.stop_gradient(mx.argsort(order))]
    return mx.unflatten(y, 0, index.shape)


def grouped_mm(x: mx.array, weight: mx.array, ends: mx.array) -> mx.array:
    """Rows [S, D] times matrices [E, D, O], the i-th up to `ends[i]`; beyond them 0."""
    rows = mx.arange(x.shape[0])[:, None]
    group = mx.sum(rows >= ends, axis=-1)
    index = mx.stop_gradient(mx.minimum(group, weight.shape[0] - 1))
    y = gather_mm(x, weight, index, sorted_indices=True)
    return mx.where(rows < ends[-1], y, mx.zeros((), y.dtype))
