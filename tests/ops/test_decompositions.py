"""Matrix decompositions, inverses and solutions against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import case
from torch2mlx.errors import UnsupportedError

A = torch.randn(3, 4, 5)
SQUARE = torch.randn(3, 4, 4) + 4 * torch.eye(4)
SYMMETRIC = SQUARE @ SQUARE.mT
SINGULAR = torch.tensor([[1.0, 2, 3], [2, 4, 6], [1, 0, 1]])
TOL = torch.tensor([0.5, 1.0, 2.0])
REFLECTORS = torch.geqrf(A.mT)
RIGHT = torch.randn(3, 5, 2)
A6 = torch.randn(6, 6)


def eigenvectors(x: torch.Tensor) -> torch.Tensor:
    """How far they are from being eigenvectors; their order is LAPACK's."""
    values, vectors = torch.linalg.eig(x)
    return (x.cfloat() @ vectors - vectors * values[..., None, :]).abs()


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("det", torch.linalg.det, SQUARE),
        case("slogdet", torch.linalg.slogdet, SQUARE),
        case("logdet", torch.logdet, SYMMETRIC),
        case("singular det", torch.linalg.det, torch.ones(2, 2)),
        case("singular slogdet", torch.slogdet, torch.ones(2, 2)),
        case("inv", torch.linalg.inv, SQUARE),
        case("inv_ex", torch.linalg.inv_ex, SQUARE),
        case("tensorinv", torch.linalg.tensorinv, SQUARE[0].reshape(2, 2, 4)),
        case(
            "tensorinv of three axes",
            lambda x: torch.linalg.tensorinv(x, 1),
            SQUARE[0].reshape(4, 2, 2),
        ),
        case(
            "tensorsolve",
            torch.linalg.tensorsolve,
            SQUARE[0].reshape(2, 2, 4),
            A[0, :2, :2],
        ),
        case(
            "tensorsolve along other axes",
            lambda a, b: torch.linalg.tensorsolve(a, b, (1,)),
            SQUARE[0].reshape(2, 4, 2).permute(1, 0, 2).reshape(2, 4, 2),
            A[0, :2, :2],
        ),
        case("cholesky", torch.linalg.cholesky, SYMMETRIC),
        case(
            "upper cholesky", lambda x: torch.linalg.cholesky(x, upper=True), SYMMETRIC
        ),
        case(
            "cholesky_solve",
            torch.cholesky_solve,
            A[:, :, :2],
            torch.linalg.cholesky(SYMMETRIC),
        ),
        case("cholesky_ex", torch.linalg.cholesky_ex, SYMMETRIC),
        case(
            "cholesky_inverse", torch.cholesky_inverse, torch.linalg.cholesky(SYMMETRIC)
        ),
        case(
            "upper cholesky_inverse",
            lambda x: torch.cholesky_inverse(x, upper=True),
            torch.linalg.cholesky(SYMMETRIC, upper=True),
        ),
        case("svdvals", torch.linalg.svdvals, A),
        case("eigvalsh", torch.linalg.eigvalsh, SYMMETRIC),
        case("solve", torch.linalg.solve, SQUARE, A),
        case("solve vectors", torch.linalg.solve, SQUARE, A[..., 0]),
        case("solve_ex", torch.linalg.solve_ex, SQUARE, A),
        case("solve for one matrix", torch.linalg.solve, SQUARE[0], A),
        case("solve for one right side", torch.linalg.solve, SQUARE, A[0]),
        case(
            "solve on the right",
            lambda a, b: torch.linalg.solve(a, b, left=False),
            SQUARE,
            A.mT.contiguous(),
        ),
        case(
            "triangular",
            lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
            SQUARE.tril(),
            A,
        ),
        case(
            "unit triangular",
            lambda a, b: torch.linalg.solve_triangular(
                a, b, upper=True, unitriangular=True
            ),
            SQUARE.triu() / 4,
            A,
        ),
        case(
            "triangular on the right",
            lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, left=False),
            SQUARE.triu(),
            A.mT.contiguous(),
        ),
        case("lu", torch.linalg.lu, SQUARE),
        case("lu_factor", torch.linalg.lu_factor, A),
        case("lu_factor_ex", torch.linalg.lu_factor_ex, SQUARE),
        case("lu_factor_ex of a singular matrix", torch.linalg.lu_factor_ex, SINGULAR),
        case("torch.lu", lambda x: torch.lu(x, get_infos=True), A.mT.contiguous()),
        case("lu_unpack", torch.lu_unpack, *torch.linalg.lu_factor(A)),
        case(
            "lu_unpack of tall matrices", torch.lu_unpack, *torch.linalg.lu_factor(A.mT)
        ),
        case(
            "lu_unpack of factors only",
            lambda lu, p: torch.lu_unpack(lu, p, unpack_pivots=False),
            *torch.linalg.lu_factor(A),
        ),
        case(
            "lu_unpack of pivots only",
            lambda lu, p: torch.lu_unpack(lu, p, unpack_data=False),
            *torch.linalg.lu_factor(A),
        ),
        case("lu_solve", torch.lu_solve, A, *torch.linalg.lu_factor(SQUARE)),
        case(
            "lu_solve for one right side",
            torch.linalg.lu_solve,
            *torch.linalg.lu_factor(SQUARE),
            A[0],
        ),
        case(
            "adjoint lu_solve",
            lambda lu, p, b: torch.linalg.lu_solve(lu, p, b, adjoint=True),
            *torch.linalg.lu_factor(SQUARE),
            A,
        ),
        case(
            "lu_solve on the right",
            lambda lu, p, b: torch.linalg.lu_solve(lu, p, b, left=False),
            *torch.linalg.lu_factor(SQUARE),
            A.mT.contiguous(),
        ),
        case(
            "adjoint lu_solve on the right",
            lambda lu, p, b: torch.linalg.lu_solve(lu, p, b, left=False, adjoint=True),
            *torch.linalg.lu_factor(SQUARE),
            A.mT.contiguous(),
        ),
        case("pinv", torch.linalg.pinv, A),
        case("pinverse", torch.pinverse, A[0]),
        case("pinv of a deficient matrix", torch.linalg.pinv, SINGULAR),
        case("pinv above", lambda x: torch.linalg.pinv(x, atol=2.0), A),
        case("pinv above a part", lambda x: torch.linalg.pinv(x, rtol=0.5), A),
        case("pinv above arrays", lambda x, t: torch.linalg.pinv(x, atol=t), A, TOL),
        case("pinv above rcond", lambda x, t: torch.linalg.pinv(x, t), A, TOL / 5),
        case("hermitian pinv", lambda x: torch.linalg.pinv(x, hermitian=True), SQUARE),
        case("rank", torch.linalg.matrix_rank, SINGULAR),
        case("rank above", lambda x: torch.linalg.matrix_rank(x, 2.0), A),
        case("rank above arrays", torch.linalg.matrix_rank, A, TOL),
        case(
            "hermitian rank",
            lambda x: torch.linalg.matrix_rank(x, atol=4.0, hermitian=True),
            SQUARE,
        ),
        case(
            "complete qr", lambda x: torch.linalg.qr(x, "complete"), A.mT.contiguous()
        ),
        case("complete qr, wide", lambda x: torch.linalg.qr(x, "complete"), A),
        case("r of qr", lambda x: torch.linalg.qr(x, "r"), A),
        case("torch.qr", lambda x: torch.qr(x, some=False), A.mT.contiguous()),
        case("singular values", lambda x: torch.svd(x, compute_uv=False), A),
        case(
            "torch.svd back",
            lambda x: (lambda u, s, v: (u * s[..., None, :]) @ v.mT)(*torch.svd(x)),
            A,
        ),
        case(
            "complex svd back",
            lambda x: (lambda u, s, v: (u * s[..., None, :]) @ v.mH)(*torch.svd(x)),
            torch.complex(A, A.flip(0)),
        ),
        case("complex pinv", torch.linalg.pinv, torch.complex(A, A.flip(0))),
        case("eigenvalues", lambda x: torch.linalg.eigvals(x).abs().sort().values, A6),
        case("eigenvectors", eigenvectors, A6),
        case("householder_product", torch.linalg.householder_product, *REFLECTORS),
        case("orgqr", torch.orgqr, *REFLECTORS),
        case("ormqr", torch.ormqr, *REFLECTORS, RIGHT),
        case(
            "transposed ormqr",
            lambda *x: torch.ormqr(*x, transpose=True),
            *REFLECTORS,
            RIGHT,
        ),
        case(
            "ormqr on the right",
            lambda *x: torch.ormqr(*x, left=False),
            *REFLECTORS,
            RIGHT.mT.contiguous(),
        ),
        case(
            "transposed ormqr on the right",
            lambda *x: torch.ormqr(*x, left=False, transpose=True),
            *REFLECTORS,
            RIGHT.mT.contiguous(),
        ),
        case(
            "svd back",
            lambda x: (lambda u, s, v: (u * s[..., None, :]) @ v)(
                *torch.linalg.svd(x, full_matrices=False)
            ),
            A,
        ),
        case("qr back", lambda x: (lambda q, r: q @ r)(*torch.linalg.qr(x)), A),
        case(
            "eigh back",
            lambda x: (lambda e, v: (v * e[..., None, :]) @ v.mT)(
                *torch.linalg.eigh(x)
            ),
            SYMMETRIC,
        ),
    ],
)
def test_decompositions(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, dynamic=False, tolerance=2e-4)


def test_empty_matrices_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="empty matrix"):
        lowered(torch.linalg.lu, (torch.zeros(0, 0),))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("inv", torch.linalg.inv, torch.zeros(0, 0)),
        case("det", torch.linalg.det, torch.zeros(0, 0)),
        case("slogdet", torch.linalg.slogdet, torch.zeros(0, 3, 3)),
        case("cholesky", torch.linalg.cholesky, torch.zeros(0, 0)),
        case("cholesky_ex", torch.linalg.cholesky_ex, torch.zeros(2, 0, 0)),
        case("cholesky_inverse", torch.cholesky_inverse, torch.zeros(0, 0)),
        case("solve", torch.linalg.solve, torch.zeros(0, 0), torch.zeros(0, 2)),
        case(
            "triangular",
            lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
            SQUARE[0],
            torch.zeros(4, 0),
        ),
        case("pinv", torch.linalg.pinv, torch.zeros(4, 0)),
        case("rank", torch.linalg.matrix_rank, torch.zeros(3, 0)),
        case("svdvals", torch.linalg.svdvals, torch.zeros(4, 0)),
        case("qr", torch.linalg.qr, torch.zeros(4, 0)),
        case("cond", torch.linalg.cond, torch.zeros(2, 0, 0)),
    ],
)
def test_empty_matrices(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, dynamic=False)


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("unitriangular", [True, False])
def test_triangular_solve(upper: bool, transpose: bool, unitriangular: bool) -> None:
    options = {"transpose": transpose, "unitriangular": unitriangular}
    matrix = SQUARE.triu() if upper else SQUARE.tril()
    run_lowered(
        lambda b, a: torch.triangular_solve(b, a, upper=upper, **options),
        (A, matrix),
        dynamic=False,
        tolerance=2e-4,
    )


def test_a_failed_cholesky_says_where() -> None:
    matrix = torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
    run_lowered(lambda x: torch.linalg.cholesky_ex(x).info, (matrix,), dynamic=False)


def test_sizes_may_vary() -> None:
    run_lowered(torch.linalg.pinv, (A,), (torch.randn(2, 6, 3),), tolerance=2e-4)
    run_lowered(torch.linalg.solve, (SQUARE, A), (SQUARE[1:], A[1:]), tolerance=2e-4)
    run_lowered(torch.linalg.svdvals, (A,), (A.mT.contiguous(),), tolerance=2e-4)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: torch.linalg.lu(x, pivot=False), "pivot"),
        (lambda x: torch.linalg.lu_factor(x, pivot=False), "pivot"),
        (lambda x: torch.linalg.inv(x + 1j), "float32"),
        (lambda x: torch.orgqr(x + 1j, x[..., 0] + 1j), "complex"),
        (lambda x: torch.ormqr(x + 1j, x[..., 0] + 1j, x + 1j), "complex"),
        (lambda x: torch.linalg.pinv(x + 1j, hermitian=True), "hermitian"),
    ],
)
def test_refused(function: Callable[..., Any], match: str) -> None:
    with pytest.raises(UnsupportedError, match=match):
        lowered(function, (SQUARE,))
