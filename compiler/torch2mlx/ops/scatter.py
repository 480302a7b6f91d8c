"""Writing by index arrays: `x` itself stays as it is."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import at, empty, same, same_shape
from torch2mlx.ops.indexing import clipped, covered_part, index_of

aten = torch.ops.aten


@lowers(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`x` with values written, or added, at indices; by a mask it is `mx.where`."""
    masks = [i for i in indices if i is not None and i.dtype == mlx.core.bool_]
    if masks:
        return _masked_put(x, indices, values, accumulate)
    values = values.astype(x.dtype)
    if accumulate:
        return x.at[index_of(indices)].add(values)
    return helpers.assign(x, index_of(indices), values)


def _masked_put(x: Any, indices: Any, values: Any, accumulate: bool) -> Any:
    """Writing at `x[..., mask]`; values of the rank of that have one for each hit of the mask."""
    *before, mask = indices
    if any(index is not None for index in before):
        raise Refuse("a boolean mask beside other indices is not mapped")
    rest = x.ndim - mask.ndim - len(before)
    for _ in range(rest):
        mask = mask[..., None]
    if values.ndim > rest and same(values.shape[-rest - 1], 1):
        values = mx.squeeze(values, -rest - 1)
    if values.ndim <= rest:
        return mx.where(mask, x + values if accumulate else values, x)
    if accumulate or before or values.ndim != rest + 1:
        raise Refuse("writing several values by a boolean mask is not mapped here")
    sizes = x.shape[x.ndim - rest :]
    if not same_shape(values.shape[1:], sizes):
        values = mx.broadcast_to(values, (values.shape[0], *sizes))
    return helpers.masked_scatter(x, mask, values.astype(x.dtype))


@lowers(aten.scatter.src)
def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """`mx.put_along_axis`, into the part of `x` that the index covers."""
    if x.ndim == 0:
        return (src if src.ndim == 0 else src[0]).astype(x.dtype)
    if index.ndim == 0:
        index, src = index[None], src.reshape(-1)
    covered = covered_part(src, dim, index, along=True)
    src = (src if covered is None else src[covered]).astype(x.dtype)
    return _put(x, dim, index, src)


@lowers(aten.scatter.value)
def scatter_value(x: Any, dim: int, index: Any, value: Any) -> Any:
    """`mx.put_along_axis` of one number."""
    if x.ndim == 0:
        return mx.array(value, x.dtype)
    index = index if index.ndim else index[None]
    return _put(x, dim, index, mx.array(value, x.dtype))


def _put(x: Any, dim: int, index: Any, src: Any) -> Any:
    part = covered_part(x, dim, index)
    if part is None:
        return mx.put_along_axis(x, index, src, axis=dim)
    return helpers.assign(x, part, mx.put_along_axis(x[part], index, src, axis=dim))


@lowers(aten.scatter_add.default)
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """`x.at[...].add(src)` along an axis."""
    return scatter_reduce(x, dim, index, src, "sum")


@lowers(aten.scatter.reduce)
def scatter_with(x: Any, dim: int, index: Any, src: Any, reduce: str) -> Any:
    """`x.at[...].add(src)` or `.multiply(src)` along an axis."""
    names = {"add": "sum", "multiply": "prod"}
    return scatter_reduce(x, dim, index, src, names[reduce])


@lowers(aten.scatter.value_reduce)
def scatter_value_with(x: Any, dim: int, index: Any, value: Any, reduce: str) -> Any:
    """`x.at[...].add(value)` or `.multiply(value)` along an axis."""
    return scatter_with(x, dim, index, mx.full(index.shape, value, x.dtype), reduce)


@lowers(aten.scatter_reduce.two)
def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True
) -> Any:
    """`x.at[...]` with the update that the reduction is, along an axis."""
    if x.ndim == 0:
        index, src = index.reshape(-1), src.reshape(-1)
        y = scatter_reduce(x[None], 0, index, src, reduce, include_self)
        return y.reshape(())
    if index.ndim == 0:
        index, src = index[None], src.reshape(-1)
    covered = _shorter(src, index)
    src = (src if covered is None else src[covered]).astype(x.dtype)
    cells = helpers.along_axis(index, dim)
    return _combined(x, cells, src, reduce, include_self)


@lowers(aten.index_reduce.default)
def index_reduce(
    x: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool = True
) -> Any:
    """`x.at[:, index]` with the update that the reduction is."""
    index = index if index.ndim else index[None]
    if x.ndim == 0:
        source = source.reshape(-1)
        y = _combined(x[None], index, source, reduce, include_self)
        return y.reshape(())
    return _combined(x, at(x.ndim, dim, index), source, reduce, include_self)


def _combined(x: Any, cells: Any, src: Any, reduce: str, include_self: bool) -> Any:
    """`x` with `src` reduced into cells, together with what they hold or without it."""
    if not include_self:
        x = helpers.assign(x, cells, mx.array(_identity(reduce, x.dtype), x.dtype))
    if reduce == "mean":
        return _scatter_mean(x, cells, src, include_self)
    names = {"sum": "add", "prod": "multiply", "amax": "maximum", "amin": "minimum"}
    return getattr(x.at[cells], names[reduce])(src)


@lowers(aten.segment_reduce.default)
def segment_reduce(
    data: Any,
    reduce: str,
    lengths: Any = None,
    offsets: Any = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Any:
    """Successive segments of an axis, each reduced to one; an empty one is `initial`."""
    axis %= data.ndim
    places = mx.broadcast_to(mx.arange(data.shape[axis]), data.shape[: axis + 1])
    ends = offsets if lengths is None else mx.cumsum(lengths, axis=-1)
    segment = helpers.searchsorted(ends, places, right=True)
    if lengths is None:
        lengths = offsets[..., 1:] - offsets[..., :-1]
        segment = segment.astype(mx.int32) - 1
    cells = helpers.along_axis(segment, axis)
    kind = {"max": "amax", "min": "amin", "mean": "sum"}.get(reduce, reduce)
    start = _identity(kind, data.dtype) if initial is None else initial
    # One segment more, for what belongs to none.
    shape = (*data.shape[:axis], lengths.shape[-1] + 1, *data.shape[axis + 1 :])
    y = _combined(mx.full(shape, start, data.dtype), cells, data, kind, True)
    y = y[at(data.ndim, axis, slice(None, -1))]
    if reduce != "mean":
        return y
    rest = tuple(range(lengths.ndim, data.ndim))
    counts = mx.expand_dims(lengths, rest) if rest else lengths
    return y / (counts if initial is None else mx.maximum(counts, 1))


def _shorter(src: Any, index: Any) -> Any:
    return covered_part(src, 0, index, along=True)


def _scatter_mean(x: Any, cells: Any, src: Any, include_self: bool) -> Any:
    count = mx.ones_like(x) if include_self else mx.zeros_like(x)
    count = count.at[cells].add(mx.ones_like(src))
    total = x.at[cells].add(src)
    count = count if include_self else mx.maximum(count, 1)
    exact = mlx.core.issubdtype(x.dtype, mlx.core.inexact)
    return total / count if exact else total // count


def _identity(reduce: str, dtype: mlx.core.Dtype) -> Any:
    """The number that a reduction starts from."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype == mlx.core.bool_:
        return reduce == "amin"
    if mlx.core.issubdtype(dtype, mlx.core.integer):
        bounds = mlx.core.iinfo(dtype)
        return bounds.min if reduce == "amax" else bounds.max
    return -float("inf") if reduce == "amax" else float("inf")


@lowers(aten.masked_scatter.default)
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    """`x` with the elements of `source`, in order, where the mask is set."""
    return helpers.masked_scatter(x, mask, source)


@lowers(aten.index_add.default)
def index_add(x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    """`x.at[:, index].add(source)`."""
    source = (source if alpha == 1 else alpha * source).astype(x.dtype)
    if x.ndim == 0:
        return x[None].at[index.reshape(-1)].add(source.reshape(-1)).reshape(())
    index = index if index.ndim else index[None]
    return x.at[at(x.ndim, dim, index)].add(source)


@lowers(aten.index_copy.default)
def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    """`x` with `source` written at indices of an axis."""
    if x.ndim == 0:
        return source.reshape(())
    index = index if index.ndim else index[None]
    if source.ndim < x.ndim:
        source = mx.expand_dims(source, dim)
    return helpers.assign(x, at(x.ndim, dim, index), source)


@lowers(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """`x` with one value at indices of an axis."""
    if x.ndim == 0:
        return mx.zeros_like(x) + value
    index = index if index.ndim else index[None]
    return helpers.assign(x, at(x.ndim, dim, index), value)


@lowers(aten.put.default)
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """`x` with values written, or added, at indices into all its elements."""
    if empty(index.shape):
        return x
    flat, index, source = (part.reshape(-1) for part in (x, index, source))
    if accumulate:
        return flat.at[index].add(source).reshape(*x.shape)
    return helpers.assign(flat, index, source).reshape(*x.shape)


@lowers(aten._unsafe_masked_index_put_accumulate.default)
def masked_index_put(x: Any, mask: Any, indices: Any, values: Any) -> Any:
    """`x.at[i, j].add(values)` where the mask is set."""
    if empty(x.shape):
        return x
    return x.at[index_of(clipped(x, indices))].add(mx.where(mask, values, 0))
