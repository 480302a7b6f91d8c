"""Elementwise functions that MLX lacks."""

from __future__ import annotations

import math

import mlx.core as mx


def truncated_division(a: mx.array, b: mx.array | int) -> mx.array:
    """Integer division rounded towards zero; operands broadcast."""
    b = mx.array(b) if isinstance(b, int) else b
    return mx.sign(a) * mx.sign(b) * (mx.abs(a) // mx.abs(b))


def floor_divide(a: mx.array | float, b: mx.array | float) -> mx.array:
    """`a / b` rounded down, also where the division itself rounds up to a whole one."""
    a, b = (mx.array(x) if isinstance(x, (int, float)) else x for x in (a, b))
    rest = fmod(a, b)
    down = (rest != 0) & ((rest < 0) != (b < 0))
    return mx.where(b == 0, a / b, mx.round((a - rest) / b) - down)


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


def gcd(a: mx.array, b: mx.array) -> mx.array:
    """The greatest common divisor of integers; operands broadcast."""
    a, b = mx.abs(a), mx.abs(b)
    # As many steps as neighbours in Fibonacci's series
    for _ in range(12 * a.dtype.size):
        a, b = mx.where(b == 0, a, b), mx.remainder(a, mx.maximum(b, 1))
    return a


def lcm(a: mx.array, b: mx.array) -> mx.array:
    """The least common multiple of integers; operands broadcast."""
    return mx.abs(a // mx.maximum(gcd(a, b), 1) * b)


def nextafter(a: mx.array, b: mx.array) -> mx.array:
    """The number next to `a` in the direction of `b`; operands broadcast."""
    start, b = mx.stop_gradient(a), mx.stop_gradient(b)
    integers = {2: mx.int16, 4: mx.int32}[a.dtype.size]
    step = mx.where((b > start) == (start > 0), 1, -1).astype(integers)
    moved = (start.view(integers) + step).view(a.dtype)
    tiny = mx.array(1, integers).view(a.dtype)
    moved = mx.where(start == 0, mx.where(b > 0, tiny, -tiny), moved)
    # Plus 0, with the gradient of `a`
    moved = moved + mx.where(mx.isfinite(a), a - start, 0)
    return mx.where((a == b) | mx.isnan(b), b, mx.where(mx.isnan(a), a, moved))


def frexp(x: mx.array) -> tuple[mx.array, mx.array]:
    """A mantissa of modulus in [0.5, 1), and an exponent of 2 (int32); 0, 0 for 0."""
    power = 100 * (mx.abs(x) < 2.0**-100) - 100 * (mx.abs(x) > 2.0**100)
    normal = x * 2.0**power
    bits = mx.stop_gradient(normal).view(mx.int32)
    unit = (bits & 255 << 23).view(mx.float32)  # the same exponent, and a mantissa of 1
    special = (x == 0) | ~mx.isfinite(x)
    mantissa = mx.where(special, x, normal / mx.where(special, 1, 2 * unit))
    exponent = (bits >> 23 & 255) - 126 - power
    return mantissa, mx.where(special, 0, exponent)
