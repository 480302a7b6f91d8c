"""The special functions over wide ranges, against PyTorch in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from tests.lowering import to_mlx
from torch2mlx_templates import helpers

SPECIAL = torch.special
INF, NAN = float("inf"), float("nan")
SIGNED = torch.cat(
    [torch.linspace(-9.3, 9.3, 401), torch.logspace(-4, 2, 61), torch.zeros(1)]
)
POSITIVE = torch.logspace(-4, 3, 301)


def check(have: mx.array, want: torch.Tensor, tolerance: float) -> None:
    """Compare with numbers in double precision, relatively and absolutely."""
    np.testing.assert_allclose(
        np.array(have), want.numpy(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    ("helper", "reference", "x"),
    [
        (helpers.lgamma, torch.lgamma, SIGNED),
        (helpers.digamma, torch.digamma, SIGNED),
        (helpers.erfcx, SPECIAL.erfcx, SIGNED[SIGNED > -6]),
        (helpers.log_ndtr, SPECIAL.log_ndtr, SIGNED),
        (helpers.ndtri, SPECIAL.ndtri, torch.logspace(-30, 0, 201)),
        (helpers.ndtri, SPECIAL.ndtri, torch.linspace(0, 1, 65)),
        (helpers.entr, SPECIAL.entr, SIGNED),
        (helpers.airy_ai, SPECIAL.airy_ai, SIGNED[SIGNED < 10]),
        (helpers.spherical_bessel_j0, SPECIAL.spherical_bessel_j0, SIGNED),
    ],
)
def test_of_one_operand(
    helper: Callable[..., mx.array], reference: Any, x: torch.Tensor
) -> None:
    check(helper(to_mlx(x)), reference(x.double()), 5e-6)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    ("helper", "reference", "x"),
    [
        (helpers.bessel_j, "bessel_j{}", SIGNED),
        (helpers.bessel_y, "bessel_y{}", POSITIVE),
        (helpers.bessel_i, "modified_bessel_i{}", SIGNED[SIGNED < 50]),
        (helpers.scaled_bessel_i, "i{}e", SIGNED),
        (helpers.bessel_k, "modified_bessel_k{}", POSITIVE),
        (helpers.scaled_bessel_k, "scaled_modified_bessel_k{}", POSITIVE),
    ],
)
def test_bessel(
    helper: Callable[..., mx.array], reference: str, x: torch.Tensor, order: int
) -> None:
    function = getattr(SPECIAL, reference.format(order))
    check(helper(to_mlx(x), order), function(x.double()), 5e-6)


@pytest.mark.parametrize("order", [0, 1])
def test_bessel_at_the_ends(order: int) -> None:
    x = torch.tensor([0.0, INF, -1.0, NAN])
    for helper, reference in (
        (helpers.bessel_y, "bessel_y{}"),
        (helpers.bessel_k, "modified_bessel_k{}"),
        (helpers.scaled_bessel_k, "scaled_modified_bessel_k{}"),
    ):
        want = getattr(SPECIAL, reference.format(order))(x)
        check(helper(to_mlx(x), order), want, 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_polygamma(n: int) -> None:
    x = torch.cat([torch.linspace(-8.3, 9.1, 60), POSITIVE[100:]])
    have, want = helpers.polygamma(n, to_mlx(x)), torch.polygamma(n, x.double())
    check(have / to_mlx(want.float()), torch.ones(len(x)), 2e-5)


def test_zeta() -> None:
    s, q = torch.linspace(1.1, 9, 40)[:, None], torch.linspace(0.1, 30, 41)
    check(
        helpers.zeta(to_mlx(s), to_mlx(q)), SPECIAL.zeta(s.double(), q.double()), 5e-6
    )
    s, q = torch.tensor([1.0, 0.5, 2.0, 2.0, 2.5, 3.0]), torch.tensor(
        [2.0, 2.0, 0.0, -3.0, -0.5, -20.5]
    )
    check(
        helpers.zeta(to_mlx(s), to_mlx(q)), SPECIAL.zeta(s.double(), q.double()), 5e-6
    )


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 1000.0])
def test_incomplete_gamma(scale: float) -> None:
    a = scale * torch.linspace(0.05, 2, 40)[:, None]
    x = scale * torch.linspace(0.05, 2, 41)
    for helper, reference in (
        (helpers.gammainc, SPECIAL.gammainc),
        (helpers.gammaincc, SPECIAL.gammaincc),
    ):
        check(helper(to_mlx(a), to_mlx(x)), reference(a.double(), x.double()), 5e-6)


def test_incomplete_gamma_at_the_ends() -> None:
    a = torch.tensor([-1.0, 0.0, 0.0, 1.0, INF, INF, 1.0, 2.0, NAN])
    x = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, INF, INF, -1.0, 1.0])
    for helper, reference in (
        (helpers.gammainc, SPECIAL.gammainc),
        (helpers.gammaincc, SPECIAL.gammaincc),
    ):
        check(helper(to_mlx(a), to_mlx(x)), reference(a, x), 1e-6)


@pytest.mark.parametrize(
    ("helper", "reference"),
    [
        (helpers.chebyshev_t, "chebyshev_polynomial_t"),
        (helpers.chebyshev_u, "chebyshev_polynomial_u"),
        (helpers.chebyshev_v, "chebyshev_polynomial_v"),
        (helpers.chebyshev_w, "chebyshev_polynomial_w"),
        (helpers.hermite_h, "hermite_polynomial_h"),
        (helpers.hermite_he, "hermite_polynomial_he"),
        (helpers.laguerre_l, "laguerre_polynomial_l"),
        (helpers.legendre_p, "legendre_polynomial_p"),
    ],
)
def test_polynomials(helper: Callable[..., mx.array], reference: str) -> None:
    x, n = torch.linspace(-2, 2, 21)[:, None], torch.arange(-2.0, 9.0)
    want = getattr(SPECIAL, reference)(x.double(), n.double())
    check(helper(to_mlx(x), to_mlx(n)), want, 5e-6)
    check(helper(to_mlx(x), 3.7)[:, 0], want[:, 5], 5e-6)
    assert helper(to_mlx(x), mx.zeros((0,))).shape == (21, 0)


@pytest.mark.parametrize(
    ("helper", "reference"),
    [
        (helpers.lgamma, torch.lgamma),
        (helpers.digamma, torch.digamma),
        (lambda x: helpers.polygamma(2, x), lambda x: torch.polygamma(2, x)),
        (helpers.erfcx, SPECIAL.erfcx),
        (helpers.log_ndtr, SPECIAL.log_ndtr),
        (helpers.entr, SPECIAL.entr),
        (lambda x: helpers.scaled_bessel_i(x, 0), SPECIAL.i0e),
        (lambda x: helpers.bessel_i(x, 1), SPECIAL.i1),
        (lambda x: helpers.ndtri(x / 10), lambda x: SPECIAL.ndtri(x / 10)),
    ],
)
def test_gradients(helper: Callable[..., mx.array], reference: Any) -> None:
    x = torch.tensor([0.2, 0.7, 3.3, 8.9])
    have = mx.grad(lambda v: mx.sum(helper(v)))(to_mlx(x))
    x = x.double().requires_grad_()
    (want,) = torch.autograd.grad(reference(x).sum(), x)
    check(have, want, 2e-5)
