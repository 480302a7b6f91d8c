"""Elementwise functions that MLX lacks."""

from __future__ import annotations

import math

import mlx.core as mx


def truncated_division(a: mx.array, b: mx.array | int) -> mx.array:
    """Integer division rounded towards zero; operands broadcast."""
    b = mx.array(b) if isinstance(b, int) else b
    return mx.sign(a) * mx.sign(b) * (mx.abs(a) // mx.abs(b))


def fmod(a: mx.array, b: mx.array | float) -> mx.array:
    """The remainder of a division rounded towards zero; operands broadcast."""
    b = mx.array(b, a.dtype) if isinstance(b, int) else mx.array(b)
    return mx.sign(a) * mx.remainder(mx.abs(a), mx.abs(b))


def integer_power(a: mx.array | int, b: mx.array) -> mx.array:
    """`a**b` of integers; 0 for a negative exponent unless `a` is 1 or -1."""
    a = mx.array(a)
    return mx.where((b >= 0) | (mx.abs(a) == 1), a ** mx.abs(b), 0)


def fmax(a: mx.array, b: mx.array) -> mx.array:
    """The larger element; a number where the other is nan."""
    return mx.where(mx.isnan(a), b, mx.where(mx.isnan(b), a, mx.maximum(a, b)))


def fmin(a: mx.array, b: mx.array) -> mx.array:
    """The smaller element; a number where the other is nan."""
    return mx.where(mx.isnan(a), b, mx.where(mx.isnan(b), a, mx.minimum(a, b)))


def signbit(x: mx.array) -> mx.array:
    """Whether the sign is negative, that of -0.0 too."""
    if mx.issubdtype(x.dtype, mx.inexact):
        return (x < 0) | ((x == 0) & (1 / x < 0))
    return x < 0


def copysign(a: mx.array, b: mx.array | float) -> mx.array:
    """The modulus of `a` with the sign of `b`; operands broadcast."""
    b = mx.array(b) if isinstance(b, (int, float)) else b
    return mx.where(signbit(b), -1.0, 1.0) * mx.abs(a)


def sinc(x: mx.array) -> mx.array:
    """`sin(pi x) / (pi x)`, 1 at 0."""
    y = math.pi * mx.where(x == 0, 1, x)
    return mx.where(x == 0, 1.0, mx.sin(y) / y)


def hypot(a: mx.array, b: mx.array) -> mx.array:
    """The length of the hypotenuse; operands broadcast."""
    return mx.sqrt(mx.square(a) + mx.square(b))


def xlogy(a: mx.array | float, b: mx.array | float) -> mx.array:
    """`a * log(b)`, 0 where `a` is 0 and `b` is not nan; operands broadcast."""
    a, b = (mx.array(x) if isinstance(x, (int, float)) else x for x in (a, b))
    product = a * mx.log(mx.where(a == 0, 1, b))
    return mx.where(mx.isnan(b), b, product)
