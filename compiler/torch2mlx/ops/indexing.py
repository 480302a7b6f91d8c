"""Reading and writing by index arrays, and what computes such indices."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import FULL, at, empty, lowers_any, same

aten = torch.ops.aten


@lowers(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(x: Any, indices: Any) -> Any:
    """`x[i, j]`."""
    return x[_index(indices)]


def _index(indices: Any) -> Any:
    """PyTorch's list of arrays and None as an index."""
    parts = [FULL if i is None else _signed(i) for i in indices]
    while parts and parts[-1] is FULL:
        parts.pop()
    return parts[0] if len(parts) == 1 else tuple(parts)


def _signed(part: Any) -> Any:
    if part.dtype == mlx.core.bool_:
        raise Refuse("boolean indices: the result's size depends on their values")
    return part


@lowers(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`x` with values written, or added, at indices; by a mask it is `mx.where`."""
    masks = [i for i in indices if i is not None and i.dtype == mlx.core.bool_]
    if masks:
        return _masked_put(x, indices, values, accumulate)
    values = values.astype(x.dtype)
    if accumulate:
        return x.at[_index(indices)].add(values)
    return helpers.assign(x, _index(indices), values)


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
    values = mx.broadcast_to(values, (values.shape[0], *sizes)) if rest else values
    return helpers.masked_scatter(x, mask, values.astype(x.dtype))


@lowers(aten.index_select.default)
def index_select(x: Any, dim: int, index: Any) -> Any:
    """`mx.take` along an axis."""
    if x.ndim == 0:
        return x
    return mx.take(x, index if index.ndim else index[None], axis=dim)


@lowers(aten.take.default)
def take(x: Any, index: Any) -> Any:
    """`mx.take` of all elements."""
    return mx.take(x.reshape(-1), index)


@lowers(aten.gather.default)
def gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    """`mx.take_along_axis`, of the part of `x` that the index covers."""
    if empty(index.shape):
        return mx.zeros(index.shape, x.dtype)
    if x.ndim == 0 or index.ndim == 0:
        flat = mx.take(x.reshape(-1), index.reshape(-1))
        return flat.reshape(()) if index.ndim == 0 else flat
    part = _covered(x, dim, index)
    x = x if part is None else x[part]
    return mx.take_along_axis(x, index, axis=dim)


def _covered(x: Any, dim: int, index: Any, along: bool = False) -> Any:
    """The slices of `x` that an index along an axis covers; None where that is all of it."""
    parts = [FULL] * x.ndim
    sizes = list(zip(x.shape, index.shape, strict=True))
    for axis, (own, size) in enumerate(sizes):
        if (axis != dim % x.ndim or along) and not same(own, size):
            parts[axis] = slice(None, size)
    return None if all(part is FULL for part in parts) else tuple(parts)


@lowers(aten.take_along_dim.default)
def take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    """`mx.take_along_axis`."""
    if dim is None:
        return mx.take(x.reshape(-1), indices.reshape(-1))
    return mx.take_along_axis(x, indices, axis=dim)


@lowers(aten.scatter.src)
def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """`mx.put_along_axis`, into the part of `x` that the index covers."""
    if x.ndim == 0:
        return (src if src.ndim == 0 else src[0]).astype(x.dtype)
    if index.ndim == 0:
        index, src = index[None], src.reshape(-1)
    covered = _covered(src, dim, index, along=True)
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
    part = _covered(x, dim, index)
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
    if not include_self:
        x = helpers.assign(x, cells, mx.array(_identity(reduce, x.dtype), x.dtype))
    if reduce == "mean":
        return _scatter_mean(x, cells, src, include_self)
    names = {"sum": "add", "prod": "multiply", "amax": "maximum", "amin": "minimum"}
    return getattr(x.at[cells], names[reduce])(src)


def _shorter(src: Any, index: Any) -> Any:
    return _covered(src, 0, index, along=True)


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
    flat, index, source = (part.reshape(-1) for part in (x, index, source))
    if accumulate:
        return flat.at[index].add(source).reshape(*x.shape)
    return helpers.assign(flat, index, source).reshape(*x.shape)


@lowers_any(aten.sort.default, aten.sort.stable)
def sort(x: Any, stable: Any = False, dim: int = -1, descending: bool = False) -> Any:
    """`mx.sort` and `mx.argsort`, which are stable; nan counts as the largest."""
    if x.ndim == 0:
        return [x, mx.zeros((), mlx.core.int32)]
    values = mx.sort(x, axis=dim)
    if descending:
        values = values[at(x.ndim, dim, slice(None, None, -1))]
    return [values, argsort(x, stable, dim, descending)]


@lowers_any(aten.argsort.default, aten.argsort.stable)
def argsort(
    x: Any, stable: Any = False, dim: int = -1, descending: bool = False
) -> Any:
    """`mx.argsort`, as signed integers."""
    if x.ndim == 0:
        return mx.zeros((), mlx.core.int32)
    if descending:
        return helpers.argsort_descending(x, dim)
    return mx.stop_gradient(mx.argsort(x, axis=dim).astype(mlx.core.int32))


@lowers(aten.msort.default)
def msort(x: Any) -> Any:
    """`mx.sort` along the first axis."""
    return mx.sort(x, axis=0) if x.ndim else x


@lowers(aten.topk.default)
def topk(
    x: Any, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Any:
    """The first elements of the sorted axis, and their indices."""
    if x.ndim == 0:
        return [x, mx.zeros((), mlx.core.int32)]
    order = argsort(x, False, dim, largest)
    indices = order[at(x.ndim, dim, slice(None, k))]
    return [mx.take_along_axis(x, indices, axis=dim), indices]


@lowers(aten.one_hot.default)
def one_hot(x: Any, num_classes: int = -1) -> Any:
    """`x[..., None] == mx.arange(num_classes)`."""
    if num_classes == -1:
        raise Refuse(
            "argument `num_classes`=-1: the result's size depends on the values"
        )
    return (x[..., None] == mx.arange(num_classes)).astype(mlx.core.int32)


@lowers(aten.bucketize.Tensor)
def bucketize(
    x: Any, boundaries: Any, out_int32: bool = False, right: bool = False
) -> Any:
    """How many boundaries lie below each element."""
    return helpers.searchsorted(boundaries, x, **({"right": True} if right else {}))


@lowers(aten.searchsorted.Tensor)
def searchsorted(
    sorted_sequence: Any,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where each element belongs in a sorted sequence."""
    if sorter is not None:
        sorted_sequence = mx.take_along_axis(sorted_sequence, sorter, axis=-1)
    right = right or side == "right"
    sequence = sorted_sequence
    return helpers.searchsorted(sequence, x, **({"right": True} if right else {}))


@lowers(aten.searchsorted.Scalar)
def searchsorted_scalar(
    sorted_sequence: Any,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where a number belongs in a sorted sequence."""
    number = mx.array(x)
    return searchsorted(sorted_sequence, number, out_int32, right, side, sorter)


@lowers(aten.isin.Tensor_Scalar)
def isin_number(
    elements: Any, test_element: Any, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each element equals a number."""
    return elements != test_element if invert else elements == test_element


@lowers(aten.isin.Tensor_Tensor)
def isin(
    elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each element equals one of the others."""
    found = mx.any(elements[..., None] == test_elements.reshape(-1), axis=-1)
    return ~found if invert else found
