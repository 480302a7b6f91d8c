"""Matrix factorisations; MLX computes them on the CPU."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import empty

aten = torch.ops.aten

# MLX ends the process where one of these gets a matrix without rows or columns.
CRASHES = {"inv", "cholesky_inv", "lu", "lu_factor", "solve", "solve_triangular"}


def on_cpu(name: str, *arguments: Any, **options: Any) -> Any:
    """`mx.linalg.<name>`, which has no GPU implementation."""
    if name in CRASHES and any(empty(x.shape[-2:]) for x in arguments):
        raise Refuse("an empty matrix is not mapped: MLX crashes")
    return getattr(mx.linalg, name)(*arguments, **options, stream=mx.cpu)


@lowers(aten.linalg_cholesky.default)
def linalg_cholesky(x: Any, upper: bool = False) -> Any:
    """The Cholesky factor of [..., n, n]."""
    return on_cpu("cholesky", x, **upper_of(upper))


@lowers(aten.cholesky.default)
def cholesky(x: Any, upper: bool = False) -> Any:
    """The Cholesky factor of [..., n, n]."""
    return on_cpu("cholesky", x, **upper_of(upper))


@lowers(aten.linalg_cholesky_ex.default)
def linalg_cholesky_ex(x: Any, upper: bool = False, check_errors: bool = False) -> Any:
    """The Cholesky factor, and where it stops to be one."""
    factor = on_cpu("cholesky", x, **upper_of(upper))
    return [factor, _info(x, mx.logical_not(_diagonal(factor) > 0))]


@lowers(aten.cholesky_inverse.default)
def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """The inverse of the matrix whose Cholesky factor is `x`."""
    return x if empty(x.shape) else on_cpu("cholesky_inv", x, **upper_of(upper))


@lowers(aten.cholesky_solve.default)
def cholesky_solve(x: Any, input2: Any, upper: bool = False) -> Any:
    """Solves for the matrix whose Cholesky factor is `input2`."""
    return cholesky_inverse(input2, upper) @ x


@lowers(aten.linalg_qr.default)
def linalg_qr(A: Any, mode: str = "reduced") -> Any:
    """Q and R; Q is square if `mode` is "complete"."""
    if mode == "complete":
        return helpers.complete_qr(A)
    q, r = on_cpu("qr", A)
    return [mx.zeros((0,), dtype=q.dtype) if mode == "r" else q, r]


@lowers(aten.qr.default)
def qr(x: Any, some: bool = True) -> Any:
    """Q and R, which are square unless `some`."""
    return linalg_qr(x, "reduced" if some else "complete")


@lowers(aten.linalg_householder_product.default)
def linalg_householder_product(x: Any, tau: Any) -> Any:
    """The first columns of the Q that a QR factorisation stores as reflections."""
    _must_be_real(x)
    return helpers.householder_product(x, tau)


@lowers(aten.orgqr.default)
def orgqr(x: Any, input2: Any) -> Any:
    """`linalg_householder_product`."""
    return linalg_householder_product(x, input2)


@lowers(aten.ormqr.default)
def ormqr(
    x: Any, input2: Any, input3: Any, left: bool = True, transpose: bool = False
) -> Any:
    """`input3` times the Q that `x` and its factors `input2` store as reflections."""
    _must_be_real(x)
    options = {"transpose": True} if transpose == left else {}
    if left:
        return helpers.multiply_by_q(x, input2, input3, **options)
    y = helpers.multiply_by_q(x, input2, input3.swapaxes(-1, -2), **options)
    return y.swapaxes(-1, -2)


@lowers(aten.linalg_svdvals.default)
def linalg_svdvals(A: Any) -> Any:
    """The singular values, descending."""
    return on_cpu("svd", A, compute_uv=False)


@lowers(aten.linalg_svd.default)
def linalg_svd(A: Any, full_matrices: bool = True) -> Any:
    """U, the singular values, and V transposed."""
    u, s, vt = on_cpu("svd", A)
    if full_matrices:
        return [u, s, vt]
    rank = s.shape[-1]
    return [u[..., :rank], s, vt[..., :rank, :]]


@lowers(aten.svd.default)
def svd(x: Any, some: bool = True, compute_uv: bool = True) -> Any:
    """U, the singular values, and V; U and V are square unless `some`."""
    if not compute_uv:
        rows, columns = x.shape[-2:]
        zeros = [
            mx.zeros((*x.shape[:-2], n, n), dtype=x.dtype) for n in (rows, columns)
        ]
        return [zeros[0], linalg_svdvals(x), zeros[1]]
    u, s, vt = linalg_svd(x, full_matrices=not some)
    v = vt.swapaxes(-1, -2)
    return [u, s, mx.conjugate(v) if x.dtype == mlx.core.complex64 else v]


@lowers(aten.linalg_eigh.default)
def linalg_eigh(x: Any, UPLO: str = "L") -> Any:
    """Eigenvalues and eigenvectors of a symmetric matrix."""
    return on_cpu("eigh", x, **({} if UPLO == "L" else {"UPLO": UPLO}))


@lowers(aten.linalg_eigvalsh.default)
def linalg_eigvalsh(x: Any, UPLO: str = "L") -> Any:
    """Eigenvalues of a symmetric matrix."""
    return on_cpu("eigvalsh", x, **({} if UPLO == "L" else {"UPLO": UPLO}))


@lowers(aten.linalg_eig.default)
def linalg_eig(x: Any) -> Any:
    """Complex eigenvalues and eigenvectors."""
    return on_cpu("eig", x)


@lowers(aten.linalg_eigvals.default)
def linalg_eigvals(x: Any) -> Any:
    """Complex eigenvalues."""
    return on_cpu("eigvals", x)


@lowers(aten.linalg_lu.default)
def linalg_lu(A: Any, pivot: bool = True) -> Any:
    """P, L and U with A = P @ L @ U."""
    _must_pivot(pivot)
    rows, lower, upper = on_cpu("lu", A)
    return [mx.eye(A.shape[-2])[rows], lower, upper]


@lowers(aten.linalg_lu_factor.default)
def linalg_lu_factor(A: Any, pivot: bool = True) -> Any:
    """L and U in one matrix, and LAPACK's pivots, which count from 1."""
    _must_pivot(pivot)
    lu, pivots = on_cpu("lu_factor", A)
    return [lu, pivots.astype(mlx.core.int32) + 1]


@lowers(aten.linalg_lu_factor_ex.default)
def linalg_lu_factor_ex(A: Any, pivot: bool = True, check_errors: bool = False) -> Any:
    """`linalg_lu_factor`, and where U has its first 0."""
    lu, pivots = linalg_lu_factor(A, pivot)
    return [lu, pivots, _info(A, _diagonal(lu) == 0)]


@lowers(aten._lu_with_info.default)
def lu_with_info(x: Any, pivot: bool = True, check_errors: bool = True) -> Any:
    """`torch.lu`."""
    return linalg_lu_factor_ex(x, pivot)


@lowers(aten.lu_unpack.default)
def lu_unpack(
    LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    """P, L and U of an LU factorisation; what is not asked for is empty."""
    nothing = mx.zeros((0,), dtype=LU_data.dtype)
    permutation, factors = nothing, [nothing, nothing]
    if unpack_pivots:
        rows = LU_data.shape[-2]
        swaps = mx.eye(rows)[helpers.row_order(LU_pivots, rows)]
        permutation = swaps.swapaxes(-1, -2)
    if unpack_data:
        factors = helpers.lu_factors(LU_data)
    return [permutation, *factors]


def upper_of(upper: bool) -> dict[str, bool]:
    """The argument that asks for an upper triangle."""
    return {"upper": True} if upper else {}


def _must_pivot(pivot: bool) -> None:
    if not pivot:
        raise Refuse("argument `pivot`=False is not mapped: MLX always pivots")


def _must_be_real(x: Any) -> None:
    if x.dtype == mlx.core.complex64:
        raise Refuse("reflections of complex matrices are not mapped")


def _diagonal(x: Any) -> Any:
    return mx.diagonal(x, axis1=-2, axis2=-1)


def _info(x: Any, failed: Any) -> Any:
    """LAPACK's `info`: the place of the first failure, counted from 1, or 0."""
    if empty(x.shape):
        return mx.zeros(x.shape[:-2], dtype=mlx.core.int32)
    place = mx.argmax(failed, axis=-1) + 1
    return mx.where(mx.any(failed, axis=-1), place, 0).astype(mlx.core.int32)
