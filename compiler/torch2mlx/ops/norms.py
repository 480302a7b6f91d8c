"""Norms and distances of vectors and matrices."""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import empty
from torch2mlx.ops.decompositions import linalg_svdvals
from torch2mlx.ops.inverses import linalg_inv

aten = torch.ops.aten


@lowers(aten.linalg_vector_norm.default)
def linalg_vector_norm(
    x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """The norm of the vectors along `dim`, of all elements by default."""
    x = x if dtype is None else x.astype(dtype)
    return vector_norm(x, ord, dim, keepdim)


@lowers(aten.linalg_norm.default)
def linalg_norm(
    x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """The norm of vectors, or of matrices where `ord` is given and two axes are meant."""
    x = x if dtype is None else x.astype(dtype)
    axes = tuple(range(x.ndim)) if dim is None else tuple(dim)
    if ord is None or len(axes) == 1:
        return vector_norm(x, 2 if ord is None else ord, dim, keepdim)
    return matrix_norm(x, ord, axes, keepdim)


@lowers(aten.linalg_norm.ord_str)
def linalg_norm_by_name(
    x: Any, ord: str, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """The Frobenius ("fro") or nuclear ("nuc") norm of matrices."""
    x = x if dtype is None else x.astype(dtype)
    return matrix_norm(x, ord, (0, 1) if dim is None else tuple(dim), keepdim)


@lowers(aten.linalg_matrix_norm.default)
def linalg_matrix_norm(
    x: Any, ord: Any, dim: Any = (-2, -1), keepdim: bool = False, dtype: Any = None
) -> Any:
    """The norm of matrices by a number."""
    return linalg_norm_by_name(x, ord, dim, keepdim, dtype)


@lowers(aten.linalg_matrix_norm.str_ord)
def linalg_matrix_norm_by_name(
    x: Any,
    ord: str = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    dtype: Any = None,
) -> Any:
    """The norm of matrices by a name."""
    return linalg_norm_by_name(x, ord, dim, keepdim, dtype)


@lowers(aten.norm.Scalar)
def norm(x: Any, p: Any = 2) -> Any:
    """The norm of all elements."""
    return vector_norm(x, p, None, False)


@lowers(aten.norm.ScalarOpt_dim)
def norm_along(x: Any, p: Any, dim: Any, keepdim: bool = False) -> Any:
    """The norm of the vectors along `dim`."""
    return vector_norm(x, 2 if p is None else p, dim, keepdim)


@lowers(aten.dist.default)
def dist(x: Any, other: Any, p: Any = 2) -> Any:
    """The norm of the difference."""
    return vector_norm(x - other, p, None, False)


@lowers(aten.cdist.default)
def cdist(x1: Any, x2: Any, p: float = 2, compute_mode: int | None = None) -> Any:
    """The distances of all pairs: [..., n, d] and [..., m, d] to [..., n, m]."""
    return helpers.cdist(x1, x2) if p == 2 else helpers.cdist(x1, x2, p)


@lowers(aten._cdist_forward.default)
def cdist_forward(x1: Any, x2: Any, p: float, compute_mode: int | None = None) -> Any:
    """`cdist` after decomposition."""
    return cdist(x1, x2, p)


@lowers(aten.pdist.default, aten._pdist_forward.default)
def pdist(x: Any, p: float = 2) -> Any:
    """The distances of all pairs of rows."""
    return helpers.pdist(x, p)


@lowers(aten.renorm.default)
def renorm(x: Any, p: Any, dim: int, maxnorm: Any) -> Any:
    """`x`, its slices along `dim` scaled down to a norm of `maxnorm`."""
    others = [axis for axis in range(x.ndim) if axis != dim % x.ndim]
    norms = vector_norm(x, p, others, True)
    return x * mx.where(norms > maxnorm, maxnorm / (norms + 1e-7), 1)


@lowers(aten.linalg_cond.default)
def linalg_cond(x: Any, p: Any = None) -> Any:
    """The condition number of matrices."""
    if empty(x.shape):
        return mx.zeros(x.shape[:-2])
    if p in (None, 2, -2):
        s = linalg_svdvals(x)
        largest, smallest = s[..., 0], s[..., -1]
        return smallest / largest if p == -2 else largest / smallest
    return matrix_norm(x, p, (-2, -1), False) * matrix_norm(
        linalg_inv(x), p, (-2, -1), False
    )


@lowers(aten.linalg_cond.p_str)
def linalg_cond_by_name(x: Any, p: str) -> Any:
    """The condition number of matrices for the norm "fro" or "nuc"."""
    return linalg_cond(x, p)


def vector_norm(x: Any, ord: Any, dim: Any, keepdim: bool) -> Any:
    """`mx.linalg.norm` for the 2-norm along one axis, a composition for the others."""
    if x.ndim == 0:
        dim = None
    options: dict[str, Any] = {"keepdims": True} if keepdim else {}
    axis = tuple(dim) if isinstance(dim, list | tuple) and dim else dim or None
    if isinstance(dim, int):
        axis = dim
    if isinstance(axis, tuple) and len(axis) == 1:
        axis = axis[0]
    if isinstance(axis, int):
        options["axis"] = axis
        if ord == 2:
            return mx.linalg.norm(x, **options)
    elif axis is not None:
        options["axis"] = axis
    if ord == 2:
        square = mx.square(x if x.dtype != mlx.core.complex64 else mx.abs(x))
        return mx.sqrt(mx.sum(square, **options))
    if ord == 0:
        return mx.sum((x != 0).astype(x.dtype), **options)
    if ord == 1:
        return mx.sum(mx.abs(x), **options)
    if math.isinf(ord):
        return (mx.max if ord > 0 else mx.min)(mx.abs(x), **options)
    return mx.sum(mx.abs(x) ** ord, **options) ** (1 / ord)


def matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdim: bool) -> Any:
    """The norm of the matrices that two axes span."""
    rows, columns = (axis % x.ndim for axis in axes)
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        return helpers.spectral_norm(x, ord, (rows, columns), keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise Refuse(f"argument `ord`={ord!r} is not mapped")
    along, across = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = mx.sum(mx.abs(x), axis=along, keepdims=True)
    y = (mx.max if ord > 0 else mx.min)(sums, axis=across, keepdims=True)
    return y if keepdim else mx.squeeze(y, axis=(rows, columns))
