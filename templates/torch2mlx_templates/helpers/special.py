"""Error functions, entropies and numbers of the normal distribution."""

from __future__ import annotations

import math

import mlx.core as mx


def erfcx(x: mx.array) -> mx.array:
    """`exp(x**2) * (1 - erf(x))`, where neither factor has to be representable.

    The midpoint rule for x / pi times the integral of exp(-t**2) / (x**2 + t**2), and
    what the poles at t = +-ix add to it.
    """
    y = mx.abs(x)
    total = mx.zeros_like(y)
    for k in range(9):
        t = k / 2 + 0.25
        total = total + math.exp(-(t**2)) / (mx.square(y) + t**2)
    near = mx.minimum(y, 2 * math.pi)
    poles = mx.exp(near * (near - 4 * math.pi)) / (1 + mx.exp(-4 * math.pi * near))
    value = mx.where(mx.isinf(y), 0, y) * total / math.pi + 2 * poles
    return mx.where(x < 0, 2 * mx.exp(mx.square(x)) - value, value)


def log_ndtr(x: mx.array) -> mx.array:
    """The logarithm of the standard normal distribution function."""
    low = x < -1
    tail = mx.log(0.5 * erfcx(mx.where(low, -x, 0.0) / math.sqrt(2)))
    body = mx.log(0.5 + 0.5 * mx.erf(mx.where(low, 0.0, x) / math.sqrt(2)))
    upper = mx.log1p(-0.5 * (1 - mx.erf(mx.where(x > 1, x, 1.0) / math.sqrt(2))))
    return mx.where(low, tail - 0.5 * mx.square(x), mx.where(x > 1, upper, body))


def ndtri(p: mx.array) -> mx.array:
    """The inverse of the standard normal distribution function; nan outside [0, 1]."""
    central = math.sqrt(2) * mx.erfinv(2 * p - 1)
    low = p < 0.05
    tail = mx.where(low & (p > 0), p, 0.01)
    x = -mx.sqrt(-2 * mx.log(tail))
    for _ in range(5):  # Newton's steps for the logarithm
        log = log_ndtr(x)
        density = mx.exp(-0.5 * mx.square(x) - log) / math.sqrt(2 * math.pi)
        x = x - (log - mx.log(tail)) / density
    return mx.where(low & (p > 0), x, central)


def entr(x: mx.array) -> mx.array:
    """`-x * log(x)`, 0 at 0, -inf below."""
    value = -x * mx.log(mx.where(x == 0, 1, x))
    return mx.where(x < 0, -math.inf, value)


def xlog1py(a: mx.array | float, b: mx.array | float) -> mx.array:
    """`a * log(1 + b)`, 0 where `a` is 0 and `b` is not nan; operands broadcast."""
    a, b = (mx.array(x) if isinstance(x, (int, float)) else x for x in (a, b))
    product = a * mx.log1p(mx.where(a == 0, 0, b))
    return mx.where(mx.isnan(b), b, product)
