"""Integrals and derivatives of samples against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import floats, ints

Y = torch.randn(3, 4, 5)
X = floats(0, 1, 3, 4, 4.5)


@pytest.mark.parametrize("integral", [torch.trapezoid, torch.cumulative_trapezoid])
def test_integrals(integral: Any) -> None:
    run_lowered(integral, (Y,), (torch.randn(2, 4, 7),))
    run_lowered(integral, (ints(1, 2, 4),))
    for dim in (0, 1, -1):
        run_lowered(lambda y, dim=dim: integral(y, dx=0.5, dim=dim), (Y,))
        coordinates = X[: Y.shape[dim]]
        run_lowered(lambda y, x, dim=dim: integral(y, x, dim=dim), (Y, coordinates))
        run_lowered(lambda y, x, dim=dim: integral(y, x, dim=dim), (Y, Y.flip(0)))
    run_lowered(lambda y, x: integral(y, x, dim=-2), (Y, Y[0]))


def test_trapz() -> None:
    run_lowered(torch.trapz, (Y, X))
    run_lowered(lambda y: torch.trapz(y, dx=2), (Y,))


@pytest.mark.parametrize("edge_order", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spacing": 0.5},
        {"dim": 1},
        {"dim": -1, "spacing": 2},
        {"dim": (0, 2)},
        {"dim": (0, 2), "spacing": 0.5},
        {"dim": (0, 2), "spacing": (0.5, 2.0)},
        {"spacing": (0.5, 2.0, 1.0)},
    ],
    ids=str,
)
def test_derivatives(options: dict[str, Any], edge_order: int) -> None:
    run_lowered(lambda y: torch.gradient(y, edge_order=edge_order, **options), (Y,))


@pytest.mark.parametrize("edge_order", [1, 2])
def test_derivatives_by_coordinates(edge_order: int) -> None:
    options: dict[str, Any] = {"edge_order": edge_order}
    run_lowered(lambda y, x: torch.gradient(y, spacing=(x,), dim=2, **options), (Y, X))
    run_lowered(
        lambda y, a, b: torch.gradient(y, spacing=(a, b), dim=(2, 0), **options),
        (Y, X, X[:3]),
    )


def test_derivatives_of_integers() -> None:
    run_lowered(lambda y: torch.gradient(y, spacing=2.0), (ints(1, 3, 7, 8),))
