"""Results whose sizes depend on values.

To know a size, these functions evaluate their argument while the model runs. So they
work neither inside `mx.compile` nor `mx.vmap`. Gradients flow through the values that
are picked, not through how many they are.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def positions(mask: mx.array) -> mx.array:
    """Flat indices (int32) of what is not zero, in order; evaluates `mask`."""
    mask = mask.flatten() != 0
    count = int(mx.sum(mask))
    places = mx.where(mask, mx.arange(mask.size), mask.size)
    return mx.stop_gradient(mx.sort(places)[:count])


def unravel(places: mx.array, shape: tuple[int, ...]) -> tuple[mx.array, ...]:
    """Flat indices into an array of `shape` as one index array for each axis."""
    indices = []
    for size in reversed(shape):
        indices.append(places % size)
        places = places // size
    return tuple(reversed(indices))


def nonzero(x: mx.array) -> tuple[mx.array, ...]:
    """Where `x` is not zero: for each axis the indices (N,); evaluates `x`."""
    return unravel(positions(x), x.shape)


def argwhere(x: mx.array) -> mx.array:
    """Where `x` is not zero: the indices (N, x.ndim), in order; evaluates `x`."""
    return mx.stack(list(nonzero(x)), axis=1)


def argwhere_static(x: mx.array, size: int, fill: int = -1) -> mx.array:
    """The first `size` rows of `argwhere`, filled up with `fill`; evaluates nothing."""
    mask = x.flatten() != 0
    places = mx.sort(mx.where(mask, mx.arange(mask.size), mask.size))
    missing = max(size - mask.size, 0)
    places = mx.pad(places, (0, missing), constant_values=mask.size)[:size, None]
    indices = mx.concatenate(list(unravel(places, x.shape)), axis=1)
    return mx.stop_gradient(mx.where(places < mask.size, indices, fill))


def masked_select(x: mx.array, mask: mx.array, axis: int = 0) -> mx.array:
    """`x` where a mask of its axes from `axis` on is set; evaluates `mask`."""
    x = mx.flatten(x, axis, axis + mask.ndim - 1)
    return mx.take(x, positions(mask), axis=axis)


def unique_consecutive(
    x: mx.array, axis: int = 0
) -> tuple[mx.array, mx.array, mx.array]:
    """Runs of equal parts of `x` along an axis; evaluates `x`.

    Returns:
        The first part of each run, the run of each part of `x`, the length of each run.
    """
    x = mx.moveaxis(x, axis, 0)
    size = x.shape[0]
    columns = mx.flatten(x[..., None], 1)
    changed = mx.any(columns[1:] != columns[:-1], axis=1)
    is_first = mx.concatenate([mx.ones(min(size, 1), mx.bool_), changed])
    starts = positions(is_first)
    run = mx.cumsum(is_first.astype(mx.int32)) - 1
    ends = mx.concatenate([starts[1:], mx.array([size])])
    return mx.moveaxis(x[starts], 0, axis), run, ends - starts


def unique(x: mx.array, axis: int = 0) -> tuple[mx.array, mx.array, mx.array]:
    """The different parts of `x` along an axis, sorted; evaluates `x`.

    Returns:
        These parts, which of them each part of `x` is, how often each occurs.
    """
    columns = mx.flatten(mx.moveaxis(x, axis, 0)[..., None], 1)
    order = mx.arange(x.shape[axis])
    for column in reversed(range(columns.shape[1])):
        order = order[mx.argsort(columns[order, column])]
    order = mx.stop_gradient(order)
    values, run, counts = unique_consecutive(mx.take(x, order, axis=axis), axis)
    return values, run[mx.argsort(order)], counts


def bincount(
    x: mx.array, weights: mx.array | None = None, minlength: int = 0
) -> mx.array:
    """How often each number from 0 on occurs, or its weight; evaluates `x`."""
    weights = mx.ones(x.shape, mx.int32) if weights is None else weights
    if x.size == 0:
        return mx.zeros(minlength, weights.dtype)
    size = max(minlength, int(mx.max(x)) + 1)
    return mx.zeros(size, weights.dtype).at[x].add(weights)


def repeated(repeats: mx.array, total: int | None = None) -> mx.array:
    """Each index i, `repeats[i]` times; evaluates their sum unless `total` is it."""
    ends = mx.cumsum(repeats)
    total = int(mx.sum(repeats)) if total is None else total
    return mx.searchsorted(ends, mx.arange(total), side="right").astype(mx.int32)


def repeat_interleave(
    x: mx.array, repeats: mx.array, axis: int, total: int | None = None
) -> mx.array:
    """Part i of `x`, `repeats[i]` times; evaluates their sum unless `total` is it."""
    return mx.take(x, repeated(repeats, total), axis=axis)


def split_at(x: mx.array, indices: mx.array, axis: int = 0) -> list[mx.array]:
    """The parts of `x` between positions along an axis; evaluates `indices`."""
    places: Any = indices.tolist()
    return list(mx.split(x, places, axis=axis))
