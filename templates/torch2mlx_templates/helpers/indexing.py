"""Reading and writing by index, as MLX lacks it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def assign(x: mx.array, index: Any, value: Any) -> mx.array:
    """`x` with `value` written at `index`; `x` itself stays as it is."""
    y = mx.array(x)
    y[index] = value
    return y


def along_axis(indices: mx.array, axis: int) -> tuple[mx.array, ...]:
    """The index of the cells that `mx.take_along_axis` picks along `axis`."""
    axis %= indices.ndim
    cells = []
    for i, size in enumerate(indices.shape):
        shape = [-1 if j == i else 1 for j in range(indices.ndim)]
        cells.append(indices if i == axis else mx.arange(size).reshape(shape))
    return tuple(cells)


def masked_scatter(x: mx.array, mask: mx.array, source: mx.array) -> mx.array:
    """`x` with the elements of `source`, in order, where `mask` is set."""
    shape = mx.broadcast_shapes(x.shape, mask.shape)
    mask = mx.broadcast_to(mask, shape)
    place = mx.cumsum(mask.flatten().astype(mx.int32))
    values = mx.pad(source.flatten(), (1, 0))[place].reshape(shape)
    return mx.where(mask, values, x)


def argsort_descending(x: mx.array, axis: int = -1) -> mx.array:
    """Indices (int32) that sort `x` from the largest down, ties in order, nan first."""
    axis %= x.ndim
    flip = (slice(None),) * axis + (slice(None, None, -1),)
    order = mx.argsort(x[flip], axis=axis)[flip].astype(mx.int32)
    return mx.stop_gradient(x.shape[axis] - 1 - order)


def searchsorted(sequence: mx.array, values: mx.array, right: bool = False) -> mx.array:
    """How many elements of the sorted last axis of `sequence` come before each value.

    Args:
        sequence: (N,), or (*B, N) for values of shape (*B, K).
        right: Count the elements that equal the value too.
    """
    if sequence.ndim > 1:
        sequence = sequence[..., None, :]
    values = values[..., None]
    after = sequence > values if right else sequence >= values
    return mx.sum(mx.logical_not(after), axis=-1)


def diag_embed(x: mx.array, offset: int = 0) -> mx.array:
    """(*B, N) -> (*B, M, M) with the last axis on a diagonal, M = N + |offset|."""
    size = x.shape[-1] + abs(offset)
    x = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, abs(offset))])
    cells = mx.eye(size, k=offset) == 1
    zero = mx.zeros((), x.dtype)
    return mx.where(cells, x[..., None] if offset >= 0 else x[..., None, :], zero)
