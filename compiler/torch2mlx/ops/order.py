"""Sorting, and what sorting finds: the largest, the middle, the most frequent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Traced, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import at, empty, lowers_any

aten = torch.ops.aten


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
    if largest and _is_softmax(x, dim):
        # No row has only some nans, so that these need no place
        order = argsort(-x, False, dim)
    else:
        order = argsort(x, False, dim, largest)
    indices = order[at(x.ndim, dim, slice(None, k))]
    return [mx.take_along_axis(x, indices, axis=dim), indices]


def _is_softmax(x: Any, dim: int) -> bool:
    """Whether an array is the softmax along an axis."""
    if not isinstance(x, Traced) or x.node.target is not mlx.core.softmax:
        return False
    axis: Any = x.node.kwargs.get("axis")
    return isinstance(axis, int) and axis % x.ndim == dim % x.ndim


@lowers(aten.median.default)
def median(x: Any) -> Any:
    """The lower median of all elements."""
    return _of_all(helpers.lower_median, x)


@lowers(aten.nanmedian.default)
def nanmedian(x: Any) -> Any:
    """The lower median of all elements that are not nan."""
    return _of_all(helpers.lower_nanmedian, x)


@lowers(aten.median.dim)
def median_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The lower median along an axis, and its index."""
    return _along(helpers.lower_median, x, dim, keepdim)


@lowers(aten.nanmedian.dim)
def nanmedian_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The lower median, without the nans, along an axis, and its index."""
    return _along(helpers.lower_nanmedian, x, dim, keepdim)


@lowers(aten.kthvalue.default)
def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along an axis, and its index."""
    return _along(lambda x, axis: helpers.kth_smallest(x, k - 1, axis), x, dim, keepdim)


@lowers(aten.mode.default)
def mode(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along an axis, and its last index."""
    return _along(helpers.mode, x, dim, keepdim)


@lowers(aten.quantile.scalar, aten.quantile.default)
def quantile(
    x: Any,
    q: Any,
    dim: Any = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Any:
    """Quantiles along an axis, or of all elements."""
    return _quantile(helpers.quantile, x, q, dim, keepdim, interpolation)


@lowers(aten.nanquantile.scalar, aten.nanquantile.default)
def nanquantile(
    x: Any,
    q: Any,
    dim: Any = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Any:
    """`quantile` of the numbers that are not nan."""
    return _quantile(helpers.nanquantile, x, q, dim, keepdim, interpolation)


def _of_all(function: Callable[..., Any], x: Any) -> Any:
    """The value that `function` finds among all elements; of no elements it is nan."""
    if empty(x.shape):
        return mx.array(mx.nan, x.dtype)
    return function(x.reshape(-1), -1)[0][0]


def _along(function: Callable[..., Any], x: Any, dim: int, keepdim: bool) -> Any:
    """The value that `function` finds along an axis, and its index."""
    if x.ndim == 0:
        return [x, mx.zeros((), mlx.core.int32)]
    values, indices = function(x, dim)
    if keepdim:
        return [values, indices]
    return [mx.squeeze(values, dim), mx.squeeze(indices, dim)]


def _quantile(
    function: Callable[..., Any],
    x: Any,
    q: Any,
    dim: Any,
    keepdim: bool,
    interpolation: str,
) -> Any:
    options = {} if interpolation == "linear" else {"interpolation": interpolation}
    lead = 0 if isinstance(q, float) else q.ndim
    reduced = list(range(x.ndim)) if dim is None else [dim % x.ndim] if x.ndim else []
    flat = x.reshape(-1) if dim is None or x.ndim == 0 else x
    y = function(flat, q, dim if flat is x else 0, **options)
    if keepdim and reduced:
        return mx.expand_dims(y, tuple(lead + axis for axis in reduced))
    return y
