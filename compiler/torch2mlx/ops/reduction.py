"""Reductions and scans."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import axis_of, condition, empty, lowers_any, widened

aten = torch.ops.aten


def _reduce(
    function: Callable[..., Any], x: Any, dim: Any, keepdim: bool = False
) -> Any:
    """`function` over some axes; an array without axes is reduced as it is."""
    if x.ndim == 0:
        return function(x)
    return function(x, **axis_of(dim, keepdim))


def _cast(x: Any, dtype: Any) -> Any:
    return widened(x) if dtype is None else x.astype(dtype)


@lowers_any(aten.sum.default, aten.sum.dim_IntList)
def sum_(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`mx.sum`."""
    return _reduce(mx.sum, _cast(x, dtype), dim, keepdim)


@lowers_any(aten.nansum.default)
def nansum(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`mx.sum` without the nans."""
    x = _cast(x, dtype)
    return _reduce(mx.sum, mx.where(mx.isnan(x), 0, x), dim, keepdim)


@lowers_any(aten.mean.default, aten.mean.dim)
def mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`mx.mean`; float16 is summed in single precision, as PyTorch does."""
    x = x if dtype is None else x.astype(dtype)
    return _reduce(mx.mean, _single(x), dim, keepdim)


@lowers(aten.nanmean.default)
def nanmean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The mean of the numbers that are not nan."""
    x = _single(x if dtype is None else x.astype(dtype))
    valid = ~mx.isnan(x)
    total = _reduce(mx.sum, mx.where(valid, x, 0), dim, keepdim)
    return total / _reduce(mx.sum, valid, dim, keepdim)


@lowers_any(aten.prod.default, aten.prod.dim_int)
def prod(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`mx.prod`."""
    return _reduce(mx.prod, _cast(x, dtype), dim, keepdim)


@lowers(aten.amax.default)
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """`mx.max`."""
    return _reduce(mx.max, x, dim, keepdim)


@lowers(aten.amin.default)
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """`mx.min`."""
    return _reduce(mx.min, x, dim, keepdim)


@lowers(aten.max.default)
def max_(x: Any) -> Any:
    """`mx.max`."""
    return mx.max(x)


@lowers(aten.min.default)
def min_(x: Any) -> Any:
    """`mx.min`."""
    return mx.min(x)


@lowers(aten.aminmax.default)
def aminmax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`mx.min` and `mx.max`."""
    if dim is None and keepdim and x.ndim:
        return [mx.min(x, keepdims=True), mx.max(x, keepdims=True)]
    return [amin(x, dim, keepdim), amax(x, dim, keepdim)]


@lowers(aten.max.dim)
def max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    """`mx.max` and `mx.argmax`."""
    return [_reduce(mx.max, x, dim, keepdim), argmax(x, dim, keepdim)]


@lowers(aten.min.dim)
def min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    """`mx.min` and `mx.argmin`."""
    return [_reduce(mx.min, x, dim, keepdim), argmin(x, dim, keepdim)]


@lowers(aten.argmax.default)
def argmax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`mx.argmax`, as signed integers."""
    return _place(mx.argmax, x, dim, keepdim)


@lowers(aten.argmin.default)
def argmin(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`mx.argmin`, as signed integers."""
    return _place(mx.argmin, x, dim, keepdim)


def _place(function: Callable[..., Any], x: Any, dim: Any, keepdim: bool) -> Any:
    """MLX's unsigned places as signed ones; it has none of an empty array."""
    if empty(x.shape):
        function = mx.sum
    return _reduce(function, condition(x), dim, keepdim).astype(mlx.core.int32)


@lowers_any(aten.any.default, aten.any.dim, aten.any.dims)
def any_(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`mx.any`."""
    _no_empty_axes(x, dim)
    return _reduce(mx.any, x, dim, keepdim)


@lowers_any(aten.all.default, aten.all.dim, aten.all.dims)
def all_(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`mx.all`."""
    _no_empty_axes(x, dim)
    return _reduce(mx.all, x, dim, keepdim)


@lowers(aten._is_all_true.default)
def is_all_true(x: Any) -> Any:
    """`mx.all`."""
    return mx.all(x)


@lowers(aten._is_any_true.default)
def is_any_true(x: Any) -> Any:
    """`mx.any`."""
    return mx.any(x)


@lowers_any(aten.count_nonzero.default, aten.count_nonzero.dim_IntList)
def count_nonzero(x: Any, dim: Any = None) -> Any:
    """`mx.sum(x != 0)`."""
    return _reduce(mx.sum, x != 0, dim)


@lowers(aten.logsumexp.default, aten.special_logsumexp.default)
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """`mx.logsumexp`."""
    if not mlx.core.issubdtype(x.dtype, mlx.core.inexact):
        x = x.astype(mlx.core.float32)
    if x.dtype == mlx.core.complex64 and x.ndim:
        # MLX's own gives other angles than those in (-pi, pi]
        peak = mx.max(mx.real(x), **axis_of(dim, True))
        total = mx.log(mx.sum(mx.exp(x - peak), **axis_of(dim, True))) + peak
        return total if keepdim else mx.squeeze(total, **axis_of(dim, False))
    return _reduce(mx.logsumexp, x, dim, keepdim)


@lowers_any(aten.var.default, aten.var.dim)
def var(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    """`mx.var`."""
    return _spread("var", x, dim, int(unbiased), keepdim)


@lowers(aten.var.correction)
def var_correction(
    x: Any, dim: Any = None, correction: Any = None, keepdim: bool = False
) -> Any:
    """`mx.var`."""
    return _spread("var", x, dim, correction, keepdim)


@lowers_any(aten.std.default, aten.std.dim)
def std(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    """`mx.std`."""
    return _spread("std", x, dim, int(unbiased), keepdim)


@lowers(aten.std.correction)
def std_correction(
    x: Any, dim: Any = None, correction: Any = None, keepdim: bool = False
) -> Any:
    """`mx.std`."""
    return _spread("std", x, dim, correction, keepdim)


@lowers_any(aten.var_mean.default, aten.var_mean.dim)
def var_mean(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False
) -> Any:
    """`mx.var` and `mx.mean`."""
    return [var(x, dim, unbiased, keepdim), mean(x, dim, keepdim)]


@lowers(aten.var_mean.correction)
def var_mean_correction(
    x: Any, dim: Any = None, correction: Any = None, keepdim: bool = False
) -> Any:
    """`mx.var` and `mx.mean`."""
    return [var_correction(x, dim, correction, keepdim), mean(x, dim, keepdim)]


@lowers_any(aten.std_mean.default, aten.std_mean.dim)
def std_mean(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False
) -> Any:
    """`mx.std` and `mx.mean`."""
    return [std(x, dim, unbiased, keepdim), mean(x, dim, keepdim)]


@lowers(aten.std_mean.correction)
def std_mean_correction(
    x: Any, dim: Any = None, correction: Any = None, keepdim: bool = False
) -> Any:
    """`mx.std` and `mx.mean`."""
    return [std_correction(x, dim, correction, keepdim), mean(x, dim, keepdim)]


@lowers(aten.cumsum.default)
def cumsum(x: Any, dim: int, dtype: Any = None) -> Any:
    """`mx.cumsum`."""
    x = _cast(x, dtype)
    return mx.cumsum(x, axis=dim) if x.ndim else x


@lowers(aten.cumprod.default)
def cumprod(x: Any, dim: int, dtype: Any = None) -> Any:
    """`mx.cumprod`."""
    x = _cast(x, dtype)
    return mx.cumprod(x, axis=dim) if x.ndim else x


@lowers(aten.logcumsumexp.default)
def logcumsumexp(x: Any, dim: int) -> Any:
    """`mx.logcumsumexp`."""
    return mx.logcumsumexp(x, axis=dim) if x.ndim else x


@lowers(aten.cummax.default)
def cummax(x: Any, dim: int) -> Any:
    """`mx.cummax`, and where each maximum was met last."""
    if x.ndim == 0:
        return [x, mx.zeros((), mlx.core.int32)]
    return [mx.cummax(x, axis=dim), helpers.cummax_indices(x, dim)]


@lowers(aten.cummin.default)
def cummin(x: Any, dim: int) -> Any:
    """`mx.cummin`, and where each minimum was met last."""
    if x.ndim == 0:
        return [x, mx.zeros((), mlx.core.int32)]
    return [mx.cummin(x, axis=dim), helpers.cummin_indices(x, dim)]


@lowers(aten.histc.default)
def histc(x: Any, bins: int = 100, min: Any = 0, max: Any = 0) -> Any:
    """How many elements fall into each of `bins` equal parts of [min, max]."""
    bounds = () if min == max else (min, max)
    return helpers.histc(x, bins, *bounds)


@lowers(aten.diff.default)
def diff(
    x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Any:
    """The n-th difference along an axis."""
    if n == 0:
        return x
    parts = [part for part in (prepend, x, append) if part is not None]
    if len(parts) > 1:
        x = mx.concatenate(parts, axis=dim)
    return helpers.diff(x, n, dim)


def _spread(name: str, x: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    """`mx.var` or `mx.std`, which take an integral correction only."""
    function = getattr(mx, name)
    x = _single(x)
    ddof = 1 if correction is None else correction
    arguments = axis_of(dim, keepdim) if x.ndim else {}
    if ddof == int(ddof):
        return function(x, **arguments, **({"ddof": int(ddof)} if ddof else {}))
    sizes = _reduced_sizes(x, arguments.get("axis"))
    least = math.prod(n if isinstance(n, int) else 2 for n in sizes)
    if least <= ddof:
        raise Refuse(f"argument `correction`={ddof} is not mapped for so few elements")
    count = math.prod(sizes)
    factor = count / (count - ddof)
    return function(x, **arguments) * (factor if name == "var" else factor**0.5)


def _reduced_sizes(x: Any, axis: Any) -> list[Any]:
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return [x.shape[i] for i in axes]


def _single(x: Any) -> Any:
    return x.astype(mlx.core.float32) if x.dtype == mlx.core.float16 else x


def _no_empty_axes(x: Any, dim: Any) -> None:
    if isinstance(dim, list | tuple) and not dim and x.ndim:
        raise Refuse("argument `dim`=[] is not mapped")
