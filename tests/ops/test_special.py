"""Special functions through the compiler: dtypes, numbers as operands, aliases, empty arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import INF, NAN, bools, case, floats, ints

S = torch.special
X = floats(-8.4, -2.5, -0.3, 0.2, 1.0, 2.0, 3.7, 8.9)
UNARY = [
    *(torch.lgamma, S.gammaln, torch.digamma, S.psi, S.airy_ai, S.entr, S.erfcx),
    *(S.log_ndtr, S.ndtr, S.spherical_bessel_j0, torch.i0, S.i0, S.i0e, S.i1, S.i1e),
    *(S.bessel_j0, S.bessel_j1, S.bessel_y0, S.bessel_y1),
    *(S.modified_bessel_i0, S.modified_bessel_i1, S.modified_bessel_k0),
    *(S.modified_bessel_k1, S.scaled_modified_bessel_k0, S.scaled_modified_bessel_k1),
]


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.__name__)
def test_of_one_operand(function: Callable[..., Any]) -> None:
    run_lowered(
        lambda *arrays: [function(x) for x in arrays],
        (X, ints(1, 2, 7), bools(1, 0), X[4]),
        dynamic=False,
    )


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("ndtri", S.ndtri, floats(-0.5, 0.0, 1e-6, 0.03, 0.5, 0.99, 1.0, 1.5)),
        case("zeta", S.zeta, floats(2.0, 3.5)[:, None], floats(0.5, 1.0, 7.0)),
        case("zeta of a number", lambda x: S.zeta(2.0, x), X),
        case("zeta by a number", lambda x: S.zeta(x, 2), X.abs() + 1.1),
        case("xlog1py", S.xlog1py, floats(0.0, 0.0, 2.0), floats(NAN, -1.0, 3.0)),
        case("xlog1py of a number", lambda x: S.xlog1py(2, x), X.abs()),
        case("xlog1py by a number", lambda x: S.xlog1py(x, 2), ints(0, 1, 2)),
        case("igamma", torch.igamma, X.abs()[:, None], floats(0.0, 0.5, 3.0, INF)),
        case("igammac", torch.igammac, X.abs()[:, None], floats(0.0, 0.5, 3.0, INF)),
        case("gammainc", S.gammainc, X.abs(), X.abs().flip(0)),
        case("gammaincc", S.gammaincc, X.abs(), X.abs().flip(0)),
        case("polygamma of order 0", lambda x: torch.polygamma(0, x), X),
        case("polygamma", lambda x: torch.polygamma(3, x), X),
        case("polygamma_", lambda x: x.clone().polygamma_(2), X),
        case("special polygamma", lambda x: S.polygamma(1, x), ints(1, 2, 3)),
        case("mvlgamma", lambda x: torch.mvlgamma(x, 1), X.abs()),
        case("mvlgamma of 3", lambda x: torch.mvlgamma(x, 3), X.abs() + 1.1),
        case("multigammaln", lambda x: S.multigammaln(x, 2), X.abs() + 1.1),
        case("half", lambda x: torch.lgamma(x.half()).float(), X.abs() + 2.5),
        case("empty", torch.digamma, torch.zeros(0, 3)),
    ],
)
def test_of_several_operands(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    run_lowered(function, args, tolerance=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        *(f"chebyshev_polynomial_{kind}" for kind in "tuvw"),
        *(f"shifted_chebyshev_polynomial_{kind}" for kind in "tuvw"),
        "hermite_polynomial_h",
        "hermite_polynomial_he",
        "laguerre_polynomial_l",
        "legendre_polynomial_p",
    ],
)
def test_polynomials(name: str) -> None:
    function = getattr(S, name)
    x, n = floats(-1.0, -0.4, 0.0, 0.6, 1.0, 1.5), floats(-1.0, 0.0, 1.0, 2.7, 4.0, 6.0)
    run_lowered(
        lambda x, n: (
            function(x[:, None], n),
            function(x, 5),
            function(0.3, n),
            function(x[:0], n[:0]),
        ),
        (x, n),
        dynamic=False,
        tolerance=2e-5,
    )
