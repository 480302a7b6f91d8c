"""Determinants, inverses, ranks, and solutions of linear equations."""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import empty, same, same_shape
from torch2mlx.ops.decompositions import on_cpu, upper_of

aten = torch.ops.aten


@lowers(aten.linalg_det.default)
def linalg_det(A: Any) -> Any:
    """The determinant of [..., n, n]."""
    return on_cpu("det", A)


@lowers(aten.det.default)
def det(x: Any) -> Any:
    """The determinant of [..., n, n]."""
    return on_cpu("det", x)


@lowers(aten.linalg_slogdet.default)
def linalg_slogdet(A: Any) -> Any:
    """Sign and logarithm of the determinant's absolute value."""
    return on_cpu("slogdet", A)


@lowers(aten.slogdet.default)
def slogdet(x: Any) -> Any:
    """Sign and logarithm of the determinant's absolute value."""
    return on_cpu("slogdet", x)


@lowers(aten.logdet.default)
def logdet(x: Any) -> Any:
    """The logarithm of the determinant, nan where it is negative."""
    sign, value = on_cpu("slogdet", x)
    return mx.where(sign < 0, mx.nan, value)


@lowers(aten.linalg_inv.default)
def linalg_inv(A: Any) -> Any:
    """The inverse of [..., n, n]."""
    return A if empty(A.shape) else on_cpu("inv", A)


@lowers(aten.inverse.default)
def inverse(x: Any) -> Any:
    """The inverse of [..., n, n]."""
    return linalg_inv(x)


@lowers(aten.linalg_inv_ex.default)
def linalg_inv_ex(A: Any, check_errors: bool = False) -> Any:
    """The inverse, and 0 for success; MLX raises where there is none."""
    return [linalg_inv(A), mx.zeros(A.shape[:-2], dtype=mx.int32)]


@lowers(aten.linalg_tensorinv.default)
def linalg_tensorinv(x: Any, ind: int = 2) -> Any:
    """The inverse of the matrix whose rows are the first `ind` axes."""
    rows, columns = x.shape[:ind], x.shape[ind:]
    n = math.prod(rows)
    return linalg_inv(x.reshape(n, n)).reshape(*columns, *rows)


@lowers(aten.linalg_tensorsolve.default)
def linalg_tensorsolve(x: Any, other: Any, dims: Any = None) -> Any:
    """Solves for the matrix whose rows are the first `other.ndim` axes of `x`."""
    if dims is not None:
        last = [dim % x.ndim for dim in dims]
        x = x.transpose(*(i for i in range(x.ndim) if i not in last), *last)
    n = math.prod(other.shape)
    solved = on_cpu("solve", x.reshape(n, n), other.reshape(n, 1))
    return solved.reshape(x.shape[other.ndim :])


@lowers(aten.linalg_solve.default)
def linalg_solve(A: Any, B: Any, left: bool = True) -> Any:
    """Solves A @ X = B, or X @ A = B."""
    if B.ndim == 1 or same_shape(B.shape, A.shape[:-1]):
        return linalg_solve(A, B[..., None])[..., 0]
    if not left:
        return linalg_solve(A.swapaxes(-1, -2), B.swapaxes(-1, -2)).swapaxes(-1, -2)
    A, B = _same_batch(A, B)
    return B if empty(A.shape) else on_cpu("solve", A, B)


@lowers(aten.linalg_solve_ex.default)
def linalg_solve_ex(
    A: Any, B: Any, left: bool = True, check_errors: bool = False
) -> Any:
    """`linalg_solve`, and 0 for success; MLX raises where there is no solution."""
    return [linalg_solve(A, B, left), mx.zeros(A.shape[:-2], dtype=mx.int32)]


@lowers(aten.linalg_solve_triangular.default)
def linalg_solve_triangular(
    x: Any, B: Any, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """Solves x @ X = B, or X @ x = B, for triangular `x`."""
    if not left:
        x, B = x.swapaxes(-1, -2), B.swapaxes(-1, -2)
        y = linalg_solve_triangular(x, B, not upper, True, unitriangular)
        return y.swapaxes(-1, -2)
    if empty(B.shape):
        return _same_batch(x, B)[1]
    if unitriangular:
        x = mx.where(mx.eye(x.shape[-1]) > 0, 1, x)
    return on_cpu("solve_triangular", x, B, **upper_of(upper))


@lowers(aten.triangular_solve.default)
def triangular_solve(
    x: Any,
    A: Any,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    """Solves A @ X = x for triangular `A`; also gives `A`."""
    matrix = A.swapaxes(-1, -2) if transpose else A
    solved = linalg_solve_triangular(matrix, x, upper != transpose, True, unitriangular)
    return [solved, A]


@lowers(aten.linalg_lu_solve.default)
def linalg_lu_solve(
    LU: Any, pivots: Any, B: Any, left: bool = True, adjoint: bool = False
) -> Any:
    """Solves A @ X = B, or X @ A = B, for an `A` that is factored already."""
    if empty(B.shape):
        return _same_batch(LU, B)[1]
    options = {"transpose": True} if adjoint == left else {}
    if left:
        return helpers.lu_solve(LU, pivots, B, **options)
    y = helpers.lu_solve(LU, pivots, B.swapaxes(-1, -2), **options)
    return y.swapaxes(-1, -2)


@lowers(aten.lu_solve.default)
def lu_solve(x: Any, LU_data: Any, LU_pivots: Any) -> Any:
    """Solves A @ X = x for an `A` that is factored already."""
    return linalg_lu_solve(LU_data, LU_pivots, x)


@lowers(aten.pinverse.default)
def pinverse(x: Any, rcond: float = 1e-15) -> Any:
    """The pseudo-inverse of [..., m, n]."""
    return _pinv(x, None, rcond, False)


@lowers(aten.linalg_pinv.default, aten.linalg_pinv.rcond_tensor)
def linalg_pinv(x: Any, rcond: Any = 1e-15, hermitian: bool = False) -> Any:
    """The pseudo-inverse of [..., m, n]."""
    return _pinv(x, None, rcond, hermitian)


@lowers(aten.linalg_pinv.atol_rtol_float, aten.linalg_pinv.atol_rtol_tensor)
def linalg_pinv_tolerance(
    x: Any, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> Any:
    """The pseudo-inverse; singular values up to max(atol, rtol * largest) are 0."""
    return _pinv(x, atol, rtol, hermitian)


@lowers(
    aten.linalg_matrix_rank.atol_rtol_float, aten.linalg_matrix_rank.atol_rtol_tensor
)
def linalg_matrix_rank(
    x: Any, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> Any:
    """How many singular values exceed max(atol, rtol * largest)."""
    x = _hermitian(x) if hermitian else x
    return helpers.matrix_rank(x, **_tolerances(atol, rtol))


@lowers(aten.linalg_matrix_rank.default)
def linalg_matrix_rank_above(x: Any, tol: float, hermitian: bool = False) -> Any:
    """How many singular values exceed `tol`."""
    return linalg_matrix_rank(x, tol, 0.0, hermitian)


@lowers(aten.linalg_matrix_rank.tol_tensor)
def linalg_matrix_rank_above_array(x: Any, tol: Any, hermitian: bool = False) -> Any:
    """How many singular values exceed `tol`."""
    return linalg_matrix_rank(x, tol, 0.0, hermitian)


def _pinv(x: Any, atol: Any, rtol: Any, hermitian: bool) -> Any:
    if empty(x.shape):
        return x.swapaxes(-1, -2)
    x = _hermitian(x) if hermitian else x
    return helpers.pinv(x, **_tolerances(atol, rtol))


def _hermitian(x: Any) -> Any:
    """The hermitian matrix whose lower triangle is that of `x`."""
    if x.dtype == mlx.core.complex64:
        raise Refuse("argument `hermitian`=True is not mapped for complex matrices")
    return mx.tril(x) + mx.tril(x, -1).swapaxes(-1, -2)


def _tolerances(atol: Any, rtol: Any) -> dict[str, Any]:
    """Those that are given; arrays have one tolerance for each matrix."""
    given = {"atol": atol, "rtol": rtol}
    return {
        name: value if isinstance(value, int | float) else value[..., None]
        for name, value in given.items()
        if value is not None
    }


def _same_batch(A: Any, B: Any) -> tuple[Any, Any]:
    """Both with the same batch axes; MLX does not broadcast them."""
    ours, theirs = A.shape[:-2], B.shape[:-2]
    if same_shape(ours, theirs):
        return A, B
    n = max(len(ours), len(theirs))
    pairs = zip(
        (1,) * (n - len(ours)) + ours, (1,) * (n - len(theirs)) + theirs, strict=True
    )
    batch = tuple(b if same(a, 1) else a for a, b in pairs)
    return tuple(mx.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (A, B))
