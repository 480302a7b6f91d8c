"""Special functions: gamma and Bessel functions, error functions, orthogonal polynomials.

They are computed in single precision; integers and half floats are converted first.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch
from torch._ops import OpOverload

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten

ONE_OPERAND = {
    aten.lgamma.default: "lgamma",
    aten.special_gammaln.default: "lgamma",
    aten.digamma.default: "digamma",
    aten.special_digamma.default: "digamma",
    aten.special_psi.default: "digamma",
    aten.special_airy_ai.default: "airy_ai",
    aten.special_entr.default: "entr",
    aten.special_erfcx.default: "erfcx",
    aten.special_log_ndtr.default: "log_ndtr",
    aten.special_ndtri.default: "ndtri",
    aten.special_spherical_bessel_j0.default: "spherical_bessel_j0",
}
# By name and order
BESSEL = {
    aten.i0.default: ("bessel_i", 0),
    aten.special_i0.default: ("bessel_i", 0),
    aten.special_i1.default: ("bessel_i", 1),
    aten.special_i0e.default: ("scaled_bessel_i", 0),
    aten.special_i1e.default: ("scaled_bessel_i", 1),
    aten.special_bessel_j0.default: ("bessel_j", 0),
    aten.special_bessel_j1.default: ("bessel_j", 1),
    aten.special_bessel_y0.default: ("bessel_y", 0),
    aten.special_bessel_y1.default: ("bessel_y", 1),
    aten.special_modified_bessel_i0.default: ("bessel_i", 0),
    aten.special_modified_bessel_i1.default: ("bessel_i", 1),
    aten.special_modified_bessel_k0.default: ("bessel_k", 0),
    aten.special_modified_bessel_k1.default: ("bessel_k", 1),
    aten.special_scaled_modified_bessel_k0.default: ("scaled_bessel_k", 0),
    aten.special_scaled_modified_bessel_k1.default: ("scaled_bessel_k", 1),
}
TWO_OPERANDS = {
    aten.igamma.default: "gammainc",
    aten.special_gammainc.default: "gammainc",
    aten.igammac.default: "gammaincc",
    aten.special_gammaincc.default: "gammaincc",
    aten.special_zeta.default: "zeta",
    aten.special_zeta.self_scalar: "zeta",
    aten.special_zeta.other_scalar: "zeta",
    aten.special_xlog1py.default: "xlog1py",
    aten.special_xlog1py.self_scalar: "xlog1py",
    aten.special_xlog1py.other_scalar: "xlog1py",
}
POLYNOMIALS = {
    aten.special_chebyshev_polynomial_t: "chebyshev_t",
    aten.special_chebyshev_polynomial_u: "chebyshev_u",
    aten.special_chebyshev_polynomial_v: "chebyshev_v",
    aten.special_chebyshev_polynomial_w: "chebyshev_w",
    aten.special_hermite_polynomial_h: "hermite_h",
    aten.special_hermite_polynomial_he: "hermite_he",
    aten.special_laguerre_polynomial_l: "laguerre_l",
    aten.special_legendre_polynomial_p: "legendre_p",
}
SHIFTED = {
    aten.special_shifted_chebyshev_polynomial_t: "chebyshev_t",
    aten.special_shifted_chebyshev_polynomial_u: "chebyshev_u",
    aten.special_shifted_chebyshev_polynomial_v: "chebyshev_v",
    aten.special_shifted_chebyshev_polynomial_w: "chebyshev_w",
}


def single(x: Any) -> Any:
    """An array or a number as an array in single precision."""
    if isinstance(x, int | float):
        return mx.array(float(x))
    return x.astype(mlx.core.float32)


def _one_operand(overload: OpOverload, name: str) -> None:
    lowers(overload)(lambda x: getattr(helpers, name)(single(x)))


def _bessel(overload: OpOverload, name: str, order: int) -> None:
    lowers(overload)(lambda x: getattr(helpers, name)(single(x), order))


def _two_operands(overload: OpOverload, name: str) -> None:
    lowers(overload)(lambda x, other: getattr(helpers, name)(single(x), single(other)))


def _polynomial(packet: Any, name: str, shifted: bool) -> None:
    def lowering(x: Any, n: Any) -> Any:
        x = single(x)
        return getattr(helpers, name)(2 * x - 1 if shifted else x, n)

    lowers(packet.default, packet.n_scalar, packet.x_scalar)(lowering)


for _overload, _name in ONE_OPERAND.items():
    _one_operand(_overload, _name)
for _overload, (_name, _order) in BESSEL.items():
    _bessel(_overload, _name, _order)
for _overload, _name in TWO_OPERANDS.items():
    _two_operands(_overload, _name)
for _table, _shifted in ((POLYNOMIALS, False), (SHIFTED, True)):
    for _packet, _name in _table.items():
        _polynomial(_packet, _name, _shifted)


@lowers(aten.polygamma.default, aten.special_polygamma.default)
def polygamma(n: int, x: Any) -> Any:
    """The n-th derivative of digamma."""
    x = single(x)
    return helpers.polygamma(n, x) if n else helpers.digamma(x)


@lowers(aten.mvlgamma.default, aten.special_multigammaln.default)
def mvlgamma(x: Any, p: int) -> Any:
    """The logarithm of the multivariate gamma function of dimension `p`."""
    x = single(x)
    y = helpers.lgamma(x)
    for j in range(1, p):
        y = y + helpers.lgamma(x - j / 2)
    return y + p * (p - 1) / 4 * math.log(math.pi) if p > 1 else y


@lowers(aten.special_ndtr.default)
def ndtr(x: Any) -> Any:
    """The standard normal distribution function."""
    return 0.5 + 0.5 * mx.erf(single(x) / math.sqrt(2))
