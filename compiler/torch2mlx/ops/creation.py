"""Arrays from nothing but sizes and numbers, and conversions of dtype."""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, Traced, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import lowers_any, torch_dtype

aten = torch.ops.aten

NARROW = {None, mlx.core.int64, mlx.core.int32}


@lowers(aten.arange.default)
def arange(end: Any, dtype: Any = None) -> Any:
    """`mx.arange(end)`."""
    return _arange((end,), dtype)


@lowers(aten.arange.start)
def arange_start(start: Any, end: Any, dtype: Any = None) -> Any:
    """`mx.arange(start, end)`."""
    return _arange((end,) if _is(start, 0) else (start, end), dtype)


@lowers(aten.arange.start_step)
def arange_step(start: Any, end: Any, step: Any = 1, dtype: Any = None) -> Any:
    """`mx.arange(start, end, step)`."""
    if _is(step, 1):
        return arange_start(start, end, dtype)
    return _arange((start, end, step), dtype)


def _arange(bounds: tuple[Any, ...], dtype: Any) -> Any:
    """Integers are int32 in MLX, which holds any position; PyTorch's default is int64."""
    exact = dtype is not None and mlx.core.issubdtype(dtype, mlx.core.integer)
    if exact and dtype != mlx.core.int64:
        bounds = _counted(bounds)
    bounds = tuple(
        int(b) if isinstance(b, bool) or (exact and isinstance(b, float)) else b
        for b in bounds
    )
    if any(isinstance(b, float) for b in bounds):
        return mx.arange(*bounds, **_dtype(dtype, mlx.core.float32))
    return mx.arange(*bounds, **({} if dtype in NARROW else {"dtype": dtype}))


def _counted(bounds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Bounds of integers for those of floats, from which PyTorch takes how many there are."""
    start, end, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    if not any(isinstance(b, float) for b in bounds) or int(step) == 0:
        return bounds
    count = math.ceil((end - start) / step)
    return int(start), int(start) + count * int(step), int(step)


@lowers_any(aten.zeros.default, aten.empty.memory_format)
def zeros(size: Any, dtype: Any = None) -> Any:
    """`mx.zeros`."""
    return mx.zeros(_shape(size), **_dtype(dtype, mlx.core.float32))


@lowers(aten.empty_permuted.default)
def empty_permuted(size: Any, physical_layout: Any, dtype: Any = None) -> Any:
    """`mx.zeros`; MLX has one memory layout."""
    return zeros(size, dtype)


@lowers(aten.empty_strided.default)
def empty_strided(size: Any, stride: Any, dtype: Any = None) -> Any:
    """`mx.zeros`; MLX has no strides."""
    return zeros(size, dtype)


@lowers(aten.ones.default)
def ones(size: Any, dtype: Any = None) -> Any:
    """`mx.ones`."""
    return mx.ones(_shape(size), **_dtype(dtype, mlx.core.float32))


@lowers(aten.full.default)
def full(size: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`mx.full`; of no axes `mx.array`."""
    if isinstance(fill_value, Traced) and not size:
        return mx.array(fill_value, **_dtype(dtype, mlx.core.int64))
    own = _own_dtype(fill_value)
    if dtype in NARROW and own == mlx.core.int32:
        dtype = None
    if not size:
        return mx.array(fill_value, **_dtype(dtype, own))
    return mx.full(_shape(size), fill_value, **_dtype(dtype, own))


@lowers(aten.scalar_tensor.default)
def scalar_tensor(s: Any, dtype: Any = None) -> Any:
    """`mx.array`; its dtype is float32 unless another is asked for."""
    return full((), s, dtype or mlx.core.float32)


@lowers(aten.new_zeros.default, aten.new_empty.default)
def new_zeros(x: Any, size: Any, dtype: Any = None) -> Any:
    """`mx.zeros` of the dtype of `x`."""
    return zeros(size, dtype or torch_dtype(x))


@lowers(aten.new_empty_strided.default)
def new_empty_strided(x: Any, size: Any, stride: Any, dtype: Any = None) -> Any:
    """`mx.zeros` of the dtype of `x`; MLX has no strides."""
    return zeros(size, dtype or torch_dtype(x))


@lowers(aten.new_ones.default)
def new_ones(x: Any, size: Any, dtype: Any = None) -> Any:
    """`mx.ones` of the dtype of `x`."""
    return ones(size, dtype or torch_dtype(x))


@lowers(aten.new_full.default)
def new_full(x: Any, size: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`mx.full` of the dtype of `x`."""
    return full(size, fill_value, dtype or torch_dtype(x))


@lowers_any(aten.zeros_like.default, aten.empty_like.default, aten.zero.default)
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """`mx.zeros_like`."""
    if dtype is None or dtype in (x.dtype, torch_dtype(x)):
        return mx.zeros_like(x)
    return zeros(x.shape, dtype)


@lowers(aten.ones_like.default)
def ones_like(x: Any, dtype: Any = None) -> Any:
    """`mx.ones_like`."""
    if dtype is None or dtype in (x.dtype, torch_dtype(x)):
        return mx.ones_like(x)
    return ones(x.shape, dtype)


@lowers(aten.full_like.default)
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`mx.full` of the shape of `x`."""
    return full(x.shape, fill_value, dtype or torch_dtype(x))


@lowers(aten.fill.Scalar, aten.fill.Tensor)
def fill(x: Any, value: Any) -> Any:
    """`mx.full` of the shape and dtype of `x`."""
    if isinstance(value, Traced):
        return mx.broadcast_to(value.astype(x.dtype), x.shape)
    return full(x.shape, value, torch_dtype(x))


@lowers_any(aten.eye.default, aten.eye.m)
def eye(n: Any, m: Any = None, dtype: Any = None) -> Any:
    """`mx.eye`."""
    sizes = (n,) if m is None else (n, m)
    return mx.eye(*sizes, **_dtype(dtype, mlx.core.float32))


@lowers(
    aten.linspace.default,
    aten.linspace.Scalar_Tensor,
    aten.linspace.Tensor_Scalar,
    aten.linspace.Tensor_Tensor,
)
def linspace(start: Any, end: Any, steps: int, dtype: Any = None) -> Any:
    """`mx.linspace`, or the same from computed bounds."""
    integers = dtype is not None and mlx.core.issubdtype(dtype, mlx.core.integer)
    if integers:
        start, end = (_truncated(bound, dtype) for bound in (start, end))
    if isinstance(start, Traced) or isinstance(end, Traced) or integers or steps < 2:
        return _between(start, end, steps)
    return mx.linspace(start, end, steps)


@lowers(
    aten.logspace.default,
    aten.logspace.Scalar_Tensor,
    aten.logspace.Tensor_Scalar,
    aten.logspace.Tensor_Tensor,
)
def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, dtype: Any = None
) -> Any:
    """Powers of `base` with evenly spaced exponents."""
    return base ** linspace(start, end, steps, dtype)


def _truncated(bound: Any, dtype: Any) -> Any:
    return bound.astype(dtype) if isinstance(bound, Traced) else int(bound)


def _between(start: Any, end: Any, steps: int) -> Any:
    if steps == 0:
        return mx.zeros((0,))
    if steps == 1:
        return mx.full((1,), start, mlx.core.float32)
    return start + (end - start) / (steps - 1) * mx.arange(steps)


@lowers(aten.tril_indices.default)
def tril_indices(row: int, col: int, offset: int = 0) -> Any:
    """Rows and columns of the lower triangle."""
    pairs = [(i, j) for i in range(row) for j in range(col) if j <= i + offset]
    return _pairs(pairs)


@lowers(aten.triu_indices.default)
def triu_indices(row: int, col: int, offset: int = 0) -> Any:
    """Rows and columns of the upper triangle."""
    pairs = [(i, j) for i in range(row) for j in range(col) if j >= i + offset]
    return _pairs(pairs)


def _pairs(pairs: list[tuple[int, int]]) -> Any:
    if not pairs:
        return mx.zeros((2, 0), mlx.core.int32)
    rows, columns = zip(*pairs, strict=True)
    return mx.array([list(rows), list(columns)])


@lowers_any(
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.to.prim_dtype,
)
def to(x: Any, dtype: Any = None) -> Any:
    """`x.astype(dtype)`, or `x` where it has the dtype."""
    if dtype is None or dtype == x.dtype or dtype == torch_dtype(x):
        return x
    integers = mlx.core.issubdtype(x.dtype, mlx.core.integer)
    if dtype == mlx.core.int64 and (
        x.dtype == mlx.core.bool_ or (integers and x.dtype.size < 4)
    ):
        return x.astype(mlx.core.int32)
    return x.astype(dtype)


@lowers(aten.type_as.default, aten.to.other)
def type_as(x: Any, other: Any) -> Any:
    """`x` in the dtype of `other`."""
    return to(x, torch_dtype(other))


@lowers(aten.view.dtype, aten.view_copy.dtype)
def view_dtype(x: Any, dtype: Any) -> Any:
    """`x.view(dtype)`: the same bits."""
    if torch_dtype(x).size != dtype.size or torch_dtype(x) != x.dtype:
        raise Refuse("a view as a dtype of another width is not mapped")
    return mx.view(x, dtype)


@lowers(
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.alias_copy.default,
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
    aten.lift.default,
)
def clone(x: Any) -> Any:
    """`x`: MLX arrays do not share memory."""
    return x


@lowers(aten.detach.default, aten.detach_copy.default)
def detach(x: Any) -> Any:
    """`x`: the exported graph detaches only constants and results."""
    return x


@lowers(aten.copy.default)
def copy(x: Any, src: Any) -> Any:
    """`src` in the shape and dtype of `x`."""
    from torch2mlx.ops.shape import broadcast_to

    return to(broadcast_to(src, x.shape), torch_dtype(x))


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


def _shape(size: Any) -> tuple[Any, ...]:
    return tuple(size)


def _own_dtype(value: Any) -> mlx.core.Dtype:
    """The dtype that MLX gives a number, or that PyTorch would."""
    if isinstance(value, bool):
        return mlx.core.bool_
    if isinstance(value, int):
        return mlx.core.int32 if -(2**31) <= value < 2**31 else mlx.core.int64
    return mlx.core.complex64 if isinstance(value, complex) else mlx.core.float32


def _dtype(dtype: Any, default: mlx.core.Dtype) -> dict[str, Any]:
    """The keyword argument `dtype`, unless it is what MLX does by itself."""
    return {} if dtype is None or dtype == default else {"dtype": dtype}
