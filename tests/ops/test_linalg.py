"""Matrix products and norms against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from tests.lowering import lowered, run_lowered, to_mlx, to_numpy
from tests.ops.cases import case, ints
from torch2mlx.errors import UnsupportedError
from torch2mlx_templates import helpers

A, B = torch.randn(3, 4, 5), torch.randn(3, 5, 2)
V = torch.randn(5)
N = torch.arange(6).reshape(2, 3)
CUBE = torch.arange(24).reshape(2, 3, 4)
SQUARE = torch.randn(3, 4, 4) + 4 * torch.eye(4)
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
        case("int addbmm", torch.addbmm, ints(1), N[:, None], N[:, :, None]),
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
        case(
            "tensordot of an axis of one",
            lambda a, b: torch.tensordot(a, b, ([1, -1], [0, 1])),
            A[:, :1],
            A[0, :, :1].expand(4, 5),
        ),
        case(
            "int tensordot",
            lambda a, b: torch.tensordot(a, b, ([1, 2], [2, 0])),
            CUBE,
            CUBE.permute(2, 0, 1),
        ),
        case("kron", torch.kron, A[0], B[0]),
        case("cross", lambda a: torch.linalg.cross(a, a.roll(1, 0), dim=0), A),
        case("trace", torch.trace, A[0]),
        case("int trace", torch.trace, N),
        case("vecdot", torch.linalg.vecdot, A, A.flip(0)),
        case("einsum", lambda a, b: torch.einsum("b i j, bjk", a, b), A, B),
    ],
)
def test_products(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, tolerance=2e-5)


@pytest.mark.parametrize(
    "equation",
    ["ij,jk->ik", "ij,jk", "ij,jk->ki", "ij,jk->", "...j,jk->...k", "i...,...k->k..."],
)
def test_einsum_of_integers(equation: str) -> None:
    run_lowered(lambda a, b: torch.einsum(equation, a, b), (N, N.T + 1))


@pytest.mark.parametrize(
    "equation", ["aij,jk->aik", "...ij,jk", "aij,kj->k", "aij->ja"]
)
def test_einsum_of_batched_integers(equation: str) -> None:
    operands = (CUBE, ints(*range(16)).reshape(4, 4))[: equation.count(",") + 1]
    run_lowered(lambda *x: torch.einsum(equation, *x), operands)


def test_einsum_of_integers_on_a_diagonal_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="axis twice in one operand"):
        lowered(lambda x: torch.einsum("ii->i", x), (N @ N.T,))


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
    run_lowered(torch.pdist, (A[0],), (torch.randn(1, 5),), tolerance=2e-5)
    run_lowered(lambda a: torch.pdist(a, p), (A[0],), tolerance=5e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_gradient_of_the_distance_from_oneself(p: float) -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(4, 4)
    (torch.cdist(x, x, p) * weight).sum().backward()

    def loss(y: mx.array) -> mx.array:
        return mx.sum(helpers.cdist(y, y, p) * to_mlx(weight))

    gradient = to_numpy(mx.grad(loss)(to_mlx(x)))
    np.testing.assert_allclose(gradient, to_numpy(x.grad), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2, 3, INF])
@pytest.mark.parametrize("dim", [0, -1])
def test_renorm(p: float, dim: int) -> None:
    run_lowered(lambda x: torch.renorm(x, p, dim, 2.0), (A,), tolerance=2e-5)


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, INF, -INF, "fro", "nuc"])
def test_condition_numbers(p: Any) -> None:
    run_lowered(lambda x: torch.linalg.cond(x, p), (SQUARE,), tolerance=2e-4)
