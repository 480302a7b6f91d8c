"""Matrix decompositions, inverses and determinants; MLX computes them on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import empty
from torch2mlx.ops.linalg import product

aten = torch.ops.aten


def on_cpu(name: str, *arguments: Any, **options: Any) -> Any:
    """`mx.linalg.<name>`, which has no GPU implementation."""
    if any(empty(x.shape) for x in arguments):
        raise Refuse("an empty matrix is not mapped: MLX crashes")
    return getattr(mx.linalg, name)(*arguments, **options, stream=mx.cpu)


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


@lowers(aten.logdet.default)
def logdet(x: Any) -> Any:
    """The logarithm of the determinant, nan where it is negative."""
    sign, value = on_cpu("slogdet", x)
    return mx.where(sign < 0, mx.nan, value)


@lowers(aten.linalg_inv.default)
def linalg_inv(A: Any) -> Any:
    """The inverse of [..., n, n]."""
    return on_cpu("inv", A)


@lowers(aten.inverse.default)
def inverse(x: Any) -> Any:
    """The inverse of [..., n, n]."""
    return on_cpu("inv", x)


@lowers(aten.linalg_inv_ex.default)
def linalg_inv_ex(A: Any, check_errors: bool = False) -> Any:
    """The inverse, and 0 for success."""
    return [on_cpu("inv", A), mx.zeros(A.shape[:-2], dtype=mx.int32)]


@lowers(aten.linalg_cholesky.default)
def linalg_cholesky(x: Any, upper: bool = False) -> Any:
    """The Cholesky factor of [..., n, n]."""
    return on_cpu("cholesky", x, **_upper(upper))


@lowers(aten.cholesky.default)
def cholesky(x: Any, upper: bool = False) -> Any:
    """The Cholesky factor of [..., n, n]."""
    return on_cpu("cholesky", x, **_upper(upper))


@lowers(aten.linalg_cholesky_ex.default)
def linalg_cholesky_ex(x: Any, upper: bool = False, check_errors: bool = False) -> Any:
    """The Cholesky factor, and 0 for success."""
    return [
        on_cpu("cholesky", x, **_upper(upper)),
        mx.zeros(x.shape[:-2], dtype=mx.int32),
    ]


@lowers(aten.cholesky_inverse.default)
def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """The inverse of the matrix whose Cholesky factor is `x`."""
    return on_cpu("cholesky_inv", x, **_upper(upper))


@lowers(aten.cholesky_solve.default)
def cholesky_solve(x: Any, input2: Any, upper: bool = False) -> Any:
    """Solves for the matrix whose Cholesky factor is `input2`."""
    return on_cpu("cholesky_inv", input2, **_upper(upper)) @ x


@lowers(aten.linalg_qr.default)
def linalg_qr(A: Any, mode: str = "reduced") -> Any:
    """The QR decomposition, with as many columns as `A` has or rows, whichever is less."""
    rows, columns = A.shape[-2:]
    if (mode == "complete" and rows > columns) or mode == "r":
        raise Refuse(f"argument `mode`={mode!r} is not mapped: MLX has reduced QR only")
    return on_cpu("qr", A)


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
    rank = min(A.shape[-2:])
    return [u[..., :rank], s, vt[..., :rank, :]]


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


@lowers(aten.linalg_solve.default)
def linalg_solve(A: Any, B: Any, left: bool = True) -> Any:
    """Solves A @ X = B, or X @ A = B."""
    vectors = B.ndim == 1 or (
        B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1])
    )
    if vectors:
        return on_cpu("solve", A, B[..., None])[..., 0]
    if left:
        return on_cpu("solve", A, B)
    return on_cpu("solve", A.swapaxes(-1, -2), B.swapaxes(-1, -2)).swapaxes(-1, -2)


@lowers(aten.linalg_solve_ex.default)
def linalg_solve_ex(
    A: Any, B: Any, left: bool = True, check_errors: bool = False
) -> Any:
    """`linalg_solve`, and 0 for success."""
    return [linalg_solve(A, B, left), mx.zeros(A.shape[:-2], dtype=mx.int32)]


@lowers(aten.linalg_solve_triangular.default)
def linalg_solve_triangular(
    x: Any, B: Any, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """Solves x @ X = B, or X @ x = B, for triangular `x`."""
    if unitriangular:
        x = mx.where(mx.eye(x.shape[-1]) > 0, 1, x)
    if left:
        return on_cpu("solve_triangular", x, B, **_upper(upper))
    y = on_cpu(
        "solve_triangular", x.swapaxes(-1, -2), B.swapaxes(-1, -2), **_upper(not upper)
    )
    return y.swapaxes(-1, -2)


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


@lowers(aten.linalg_lu.default)
def linalg_lu(A: Any, pivot: bool = True) -> Any:
    """P, L and U with A = P @ L @ U."""
    if not pivot:
        raise Refuse("argument `pivot`=False is not mapped: MLX always pivots")
    rows, lower, upper = on_cpu("lu", A)
    return [mx.eye(A.shape[-2])[rows], lower, upper]


@lowers(aten.pinverse.default)
def pinverse(x: Any, rcond: float = 1e-15) -> Any:
    """The pseudo-inverse of [..., m, n]."""
    return helpers.pinv(x, 0.0, rcond)


@lowers(aten.linalg_pinv.default)
def linalg_pinv(x: Any, rcond: float = 1e-15, hermitian: bool = False) -> Any:
    """The pseudo-inverse of [..., m, n]."""
    return helpers.pinv(x, 0.0, rcond)


@lowers(aten.linalg_pinv.atol_rtol_float)
def linalg_pinv_tolerance(
    x: Any,
    atol: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
) -> Any:
    """The pseudo-inverse; singular values below max(atol, rtol * largest) count as 0."""
    if rtol is None:
        rtol = 0.0 if atol else max(x.shape[-2:]) * 2.0**-23
    return helpers.pinv(x, atol or 0.0, rtol)


@lowers(aten.linalg_pinv.atol_rtol_tensor)
def linalg_pinv_default(
    x: Any, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> Any:
    """The pseudo-inverse with the tolerance that PyTorch chooses."""
    if atol is not None or rtol is not None:
        raise Refuse("an array as argument `atol` or `rtol` is not mapped")
    return linalg_pinv_tolerance(x)


@lowers(aten.linalg_matrix_power.default)
def linalg_matrix_power(x: Any, n: int) -> Any:
    """`x` [..., m, m] times itself."""
    return _power(x, n)


@lowers(aten.matrix_power.default)
def matrix_power(x: Any, n: int) -> Any:
    """`x` [..., m, m] times itself."""
    return _power(x, n)


@lowers(aten.linalg_multi_dot.default)
def linalg_multi_dot(tensors: Any) -> Any:
    """The product of a chain of matrices."""
    result = tensors[0]
    for tensor in tensors[1:]:
        result = product(result, tensor)
    return result


def _power(x: Any, n: int) -> Any:
    if n == 0:
        return mx.broadcast_to(mx.eye(x.shape[-1], dtype=x.dtype), x.shape)
    base = on_cpu("inv", x) if n < 0 else x
    result = base
    for _ in range(abs(n) - 1):
        result = result @ base
    return result


def _upper(upper: bool) -> dict[str, bool]:
    return {"upper": True} if upper else {}
