"""Matrix products, decompositions and norms against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import case, ints
from torch2mlx.errors import UnsupportedError

A, B = torch.randn(3, 4, 5), torch.randn(3, 5, 2)
V = torch.randn(5)
N = torch.arange(6).reshape(2, 3)
SQUARE = torch.randn(3, 4, 4) + 4 * torch.eye(4)
SYMMETRIC = SQUARE @ SQUARE.mT
INF = float("inf")


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("matmul", torch.matmul, A, B),
        case("matmul of a vector", torch.matmul, A, V),
        case("vector by matrix", lambda v, b: v @ b, V, B),
        case("matmul that broadcasts", torch.matmul, A[None], B[0]),
        case("dot", torch.dot, V, V),
        case("mv", torch.mv, A[0], V),
        case(
            "linear of a computed weight",
            lambda x, w: torch.nn.functional.linear(x, w * 2),
            A,
            B[0].T,
        ),
        case("int matmul", torch.matmul, N, N.T),
        case("int batches", torch.bmm, N.expand(2, 2, 3), N.T.expand(2, 3, 2)),
        case("int vectors", torch.dot, ints(1, 2, 3), ints(4, 5, 6)),
        case(
            "addmm",
            lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
            B[0, :4],
            A[0],
            B[0],
        ),
        case(
            "addmm without c",
            lambda c, a, b: torch.addmm(c, a, b, beta=0),
            B[0, :4],
            A[0],
            B[0],
        ),
        case("int addmm", torch.addmm, ints(1, 2), N, N.T),
        case("baddbmm", torch.baddbmm, torch.randn(3, 4, 2), A, B),
        case("addbmm", torch.addbmm, torch.randn(4, 2), A, B),
        case("addmv", torch.addmv, torch.randn(4), A[0], V),
        case("addr", torch.addr, torch.randn(5, 5), V, V),
        case("outer", torch.outer, V, V),
        case("inner", torch.inner, A, V),
        case("int inner", torch.inner, N, N),
        case(
            "tensordot",
            lambda a, b: torch.tensordot(a, b, 2),
            A,
            A[:, 0].reshape(5, 3)[None].expand(4, 5, 3),
        ),
        case("kron", torch.kron, A[0], B[0]),
        case("cross", lambda a: torch.linalg.cross(a, a.roll(1, 0), dim=0), A),
        case("trace", torch.trace, A[0]),
        case("int trace", torch.trace, N),
        case("vecdot", torch.linalg.vecdot, A, A.flip(0)),
        case("chain", lambda a, b: torch.linalg.multi_dot((a, b, b.T)), A[0], B[0]),
        case("power", lambda x: torch.linalg.matrix_power(x, 3), SQUARE),
        case("no power", lambda x: torch.linalg.matrix_power(x, 0), SQUARE),
    ],
)
def test_products(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, tolerance=2e-5)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("det", torch.linalg.det, SQUARE),
        case("slogdet", torch.linalg.slogdet, SQUARE),
        case("logdet", torch.logdet, SYMMETRIC),
        case("inv", torch.linalg.inv, SQUARE),
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
        case("svdvals", torch.linalg.svdvals, A),
        case("eigvalsh", torch.linalg.eigvalsh, SYMMETRIC),
        case("solve", torch.linalg.solve, SQUARE, A),
        case("solve vectors", torch.linalg.solve, SQUARE, A[..., 0]),
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
        case("lu", torch.linalg.lu, SQUARE),
        case("pinv", torch.linalg.pinv, A),
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
        lowered(torch.linalg.inv, (torch.zeros(0, 0),))


@pytest.mark.parametrize("order", [0, 1, 2, 3, 0.5, INF, -INF])
@pytest.mark.parametrize("dim", [None, 1, (0, 2)])
def test_vector_norms(order: float, dim: Any) -> None:
    run_lowered(
        lambda x: torch.linalg.vector_norm(x, order, dim),
        (A.abs() + 0.1,),
        tolerance=2e-5,
    )
    run_lowered(
        lambda x: torch.linalg.vector_norm(x, order, dim, keepdim=True),
        (A.abs() + 0.1,),
        tolerance=2e-5,
    )


@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, INF, -INF])
def test_matrix_norms(order: Any) -> None:
    run_lowered(lambda x: torch.linalg.matrix_norm(x, order), (A,), tolerance=2e-5)
    run_lowered(
        lambda x: torch.linalg.norm(x, order, (0, 2), keepdim=True),
        (A,),
        tolerance=2e-5,
    )


@pytest.mark.parametrize("p", [0, 1, 2, 3.0, INF])
def test_distances(p: float) -> None:
    run_lowered(
        lambda a, b: torch.cdist(a, b, p), (A, torch.randn(3, 6, 5)), tolerance=5e-5
    )
    run_lowered(lambda a, b: torch.dist(a, b, p), (A, A.flip(0)), tolerance=2e-5)
    run_lowered(lambda a: a.norm(p, -1), (A,), tolerance=2e-5)
