"""Elementwise operators that MLX lacks, as short formulas."""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers, rename

aten = torch.ops.aten

rename(
    {
        aten.fmax.default: "helpers.fmax",
        aten.fmin.default: "helpers.fmin",
        aten.fmod.Tensor: "helpers.fmod",
        aten.fmod.Scalar: "helpers.fmod",
        aten.signbit.default: "helpers.signbit",
        aten.sinc.default: "helpers.sinc",
        aten.special_sinc.default: "helpers.sinc",
        aten.copysign.Tensor: "helpers.copysign",
        aten.copysign.Scalar: "helpers.copysign",
        aten.hypot.default: "helpers.hypot",
        aten.gcd.default: "helpers.gcd",
        aten.lcm.default: "helpers.lcm",
        aten.nextafter.default: "helpers.nextafter",
    }
)


@lowers(aten.addcmul.default)
def addcmul(x: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    """`x + value * tensor1 * tensor2`."""
    product = tensor1 * tensor2
    return x + (product if value == 1 else value * product)


@lowers(aten.addcdiv.default)
def addcdiv(x: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    """`x + value * tensor1 / tensor2`."""
    quotient = tensor1 / tensor2
    return x + (quotient if value == 1 else value * quotient)


@lowers(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(x: Any, end: Any, weight: Any) -> Any:
    """`x + weight * (end - x)`."""
    return x + weight * (end - x)


@lowers(aten.erfc.default, aten.special_erfc.default)
def erfc(x: Any) -> Any:
    """`1 - erf(x)`."""
    return 1 - mx.erf(x)


@lowers(aten.exp2.default, aten.special_exp2.default)
def exp2(x: Any) -> Any:
    """`2.0**x`."""
    return 2.0**x


@lowers(aten.ldexp.Tensor)
def ldexp(x: Any, other: Any) -> Any:
    """`x * 2.0**other`."""
    return x * 2.0**other


@lowers(aten.frexp.Tensor)
def frexp(x: Any) -> Any:
    """Mantissa and exponent."""
    return helpers.frexp(x.astype(mlx.core.float32))


@lowers(aten.frac.default)
def frac(x: Any) -> Any:
    """What follows the decimal point."""
    return x - mx.trunc(x)


@lowers(aten.logaddexp2.default)
def logaddexp2(x: Any, other: Any) -> Any:
    """`log2(2**x + 2**other)`."""
    scale = math.log(2)
    return mx.logaddexp(x * scale, other * scale) / scale


@lowers(aten.logit.default, aten.special_logit.default)
def logit(x: Any, eps: float | None = None) -> Any:
    """`log(x / (1 - x))`, of `x` clipped to `eps` and `1 - eps`."""
    if eps is not None:
        x = mx.clip(x, eps, 1 - eps)
    return mx.log(x / (1 - x))


@lowers(
    aten.xlogy.Tensor,
    aten.xlogy.Scalar_Other,
    aten.xlogy.Scalar_Self,
    aten.special_xlogy.default,
    aten.special_xlogy.other_scalar,
    aten.special_xlogy.self_scalar,
)
def xlogy(x: Any, other: Any) -> Any:
    """`x * log(other)`, 0 where `x` is 0 and `other` is a number."""
    return helpers.xlogy(x, other)


@lowers(aten.heaviside.default)
def heaviside(x: Any, values: Any) -> Any:
    """1 above 0, 0 below, `values` at 0."""
    return mx.where(x == 0, values, x > 0)


@lowers(aten.angle.default)
def angle(x: Any) -> Any:
    """The argument of a complex number."""
    if x.dtype == mlx.core.complex64:
        return mx.arctan2(mx.imag(x), mx.real(x))
    return mx.where(mx.isnan(x), x, mx.where(x < 0, math.pi, 0.0))


@lowers(aten.polar.default)
def polar(abs: Any, angle: Any) -> Any:
    """The complex number of a modulus and an argument."""
    return abs * mx.cos(angle) + 1j * (abs * mx.sin(angle))


@lowers(aten.complex.default)
def complex_(real: Any, imag: Any) -> Any:
    """The complex number of a real and an imaginary part."""
    return real + 1j * imag


@lowers(aten.real.default)
def real(x: Any) -> Any:
    """The real part; of real numbers `x`."""
    return mx.real(x) if x.dtype == mlx.core.complex64 else x


@lowers(aten.imag.default)
def imag(x: Any) -> Any:
    """The imaginary part."""
    return mx.imag(x)


@lowers(aten.isreal.default)
def isreal(x: Any) -> Any:
    """Whether the imaginary part is 0, as that of a real number is."""
    if x.dtype == mlx.core.complex64:
        return mx.imag(x) == 0
    return mx.ones(x.shape, dtype=mlx.core.bool_)


@lowers(
    aten.conj.default,
    aten._conj.default,
    aten._conj_copy.default,
    aten._conj_physical.default,
    aten.conj_physical.default,
)
def conj(x: Any) -> Any:
    """The complex conjugate; of real numbers `x`."""
    return mx.conjugate(x) if x.dtype == mlx.core.complex64 else x


@lowers(aten.resolve_conj.default, aten.resolve_neg.default)
def resolved(x: Any) -> Any:
    """`x`: MLX has no lazy conjugates."""
    return x


@lowers(aten.view_as_real.default, aten.view_as_real_copy.default)
def view_as_real(x: Any) -> Any:
    """Real and imaginary part as a last axis of two."""
    return mx.stack([mx.real(x), mx.imag(x)], axis=-1)


@lowers(aten.view_as_complex.default, aten.view_as_complex_copy.default)
def view_as_complex(x: Any) -> Any:
    """Complex numbers from a last axis of two."""
    return x[..., 0] + 1j * x[..., 1]


@lowers(aten.sgn.default)
def sgn(x: Any) -> Any:
    """`mx.sign`, of complex numbers too."""
    return mx.sign(x)


@lowers(
    aten.float_power.Tensor_Scalar,
    aten.float_power.Tensor_Tensor,
    aten.float_power.Scalar,
)
def float_power(x: Any, exponent: Any) -> Any:
    """`x**exponent`, computed in floating point."""
    if isinstance(x, int | float):
        return float(x) ** exponent
    if x.dtype != mlx.core.complex64:
        x = x.astype(mlx.core.float32)
    return x**exponent
