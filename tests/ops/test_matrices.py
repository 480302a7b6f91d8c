"""Powers of matrices, and matrices put together from parts, against PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import bools, case, floats, ints

A = torch.randn(3, 4, 5)
SQUARE = torch.randn(3, 4, 4) + 4 * torch.eye(4)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("multi_dot", lambda *x: torch.linalg.multi_dot(x), A[0], A[1].T, A[2]),
        case(
            "multi_dot of vectors and matrices",
            lambda *x: torch.linalg.multi_dot(x),
            A[0, :, 0],
            A[0],
            A[1].T,
            A[2, :, 0],
        ),
        case("chain_matmul", torch.chain_matmul, A[0], A[1].T, A[2]),
        case("matrix_exp", torch.matrix_exp, (A @ A.mT - 3) / 4),
        case("matrix_exp of zeros", torch.matrix_exp, torch.zeros(2, 2)),
        case(
            "matrix_exp of different sizes",
            torch.linalg.matrix_exp,
            SQUARE.new_tensor([-100, 0.1, 3])[:, None, None] * torch.eye(4),
        ),
        case("vander", torch.linalg.vander, floats(0, -2, 3)),
        case("vander of 5", lambda x: torch.linalg.vander(x, N=5), A[0]),
        case("vander of integers", torch.linalg.vander, ints(0, 2, -3)),
        case("torch.vander", torch.vander, floats(0, -2, 3)),
        case("increasing vander", lambda x: torch.vander(x, 2, True), floats(1, 2, 3)),
        case("block_diag", torch.block_diag, A[0], A[1].T, floats(1, 2), A[0, 0, 0]),
        case("block_diag of integers", torch.block_diag, ints(1, 2), ints(3)),
        case("block_diag of booleans", torch.block_diag, bools(1, 0), bools(1)),
        case("cartesian_prod", torch.cartesian_prod, ints(1, 2), ints(3, 4, 5)),
        case("cartesian_prod of one", torch.cartesian_prod, ints(1, 2)),
        *(
            case(f"{k} quarters", lambda x, k=k: torch.rot90(x, k, [0, 2]), A)
            for k in range(-1, 5)
        ),
        case("one quarter", torch.rot90, A),
    ],
)
def test_matrices(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, tolerance=5e-5)


def test_chains_are_multiplied_in_the_cheapest_order() -> None:
    shapes = [(2, 30), (30, 3), (3, 40)]
    program = lowered(
        lambda *x: torch.linalg.multi_dot(x), tuple(torch.randn(s) for s in shapes)
    )
    products = [n for n in program.graph.nodes if n.target is operator.matmul]
    assert [n.meta["hint"].shape for n in products] == [(2, 3), (2, 40)]
    program = lowered(
        lambda *x: torch.linalg.multi_dot(x),
        tuple(torch.randn(s[::-1]) for s in shapes[::-1]),
    )
    products = [n for n in program.graph.nodes if n.target is operator.matmul]
    assert [n.meta["hint"].shape for n in products] == [(3, 2), (40, 2)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 6, -1, -2])
def test_powers(n: int) -> None:
    matrices = SQUARE / 4
    run_lowered(lambda x: torch.linalg.matrix_power(x, n), (matrices,), tolerance=2e-4)


def test_powers_of_integers() -> None:
    matrix = ints(1, 2, 3, 4).reshape(2, 2)
    run_lowered(lambda x: torch.matrix_power(x, 3), (matrix,))
