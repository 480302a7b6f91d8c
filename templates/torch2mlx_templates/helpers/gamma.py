"""The gamma function and its kin, of real numbers in single precision."""

from __future__ import annotations

import math

import mlx.core as mx


def _stirling(x: mx.array) -> mx.array:
    """What Stirling's formula leaves of log Gamma(x), for x from 3 on: 1 / 12x - ..."""
    y = 1 / mx.square(x)
    return (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y / 1188)))) / x


def lgamma(x: mx.array) -> mx.array:
    """The logarithm of |Gamma(x)|; inf at 0, -1, -2, ..."""
    z = mx.abs(x)
    small = z < 3
    low = mx.where(small, z, 1)
    product = low * (low + 1) * (low + 2)
    z = mx.where(small, z + 3, z)
    y = (z - 0.5) * (mx.log(z) - 1) - 0.5 + 0.5 * math.log(2 * math.pi) + _stirling(z)
    y = mx.where(small, y - mx.log(product), y)
    sine = mx.sin(math.pi * mx.where(x < 0, x - mx.round(x), 0.5))
    reflected = math.log(math.pi) - mx.log(mx.abs(mx.where(x < 0, x, 1) * sine)) - y
    return mx.where(mx.isinf(x), math.inf, mx.where(x < 0, reflected, y))


def digamma(x: mx.array) -> mx.array:
    """The derivative of log Gamma(x); nan at -1, -2, ..., an infinity at 0."""
    z = mx.where(x < 0, 1 - x, x)
    shift = mx.zeros_like(z)
    for k in range(7):
        shift = shift + 1 / (z + k)
    z = z + 7
    y = 1 / mx.square(z)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240)))
    value = mx.log(z) - 0.5 / z - series - shift
    place = mx.where(x < 0, x - mx.round(x), 0.5)
    reflected = value - math.pi * mx.cos(math.pi * place) / mx.sin(math.pi * place)
    reflected = mx.where(place == 0, math.nan, reflected)
    return mx.where(x < 0, reflected, mx.where(x == 0, -1 / x, value))


def _zeta_sum(s: mx.array, q: mx.array) -> mx.array:
    """The sum of (q + k)**-s over k = 0, 1, ... for q > 0, by Euler and Maclaurin."""
    head = mx.zeros(mx.broadcast_shapes(s.shape, q.shape))
    for k in range(9):
        head = head + (q + k) ** -s
    a = q + 9
    third = s * (s + 1) * (s + 2) / a**3
    fifth = third * (s + 3) * (s + 4) / mx.square(a)
    tail = a**-s * (0.5 + s / (12 * a) - third / 720 + fifth / 30240)
    return head + a ** (1 - s) / (s - 1) + tail


def zeta(s: mx.array, q: mx.array) -> mx.array:
    """Hurwitz's zeta function; operands broadcast.

    Of negative q only at integers s > 1: the terms at either side of 0 are two sums.
    """
    rest = q - mx.floor(q)
    rest = mx.where(rest == 0, 0.5, rest)
    sign = mx.where(mx.remainder(s, 2) == 0, 1.0, -1.0)
    before = _zeta_sum(s, 1 - rest) - _zeta_sum(s, mx.where(q < 0, 1 - q, 1.0))
    below = _zeta_sum(s, rest) + sign * before
    below = mx.where(s == mx.floor(s), below, math.nan)
    below = mx.where(q == mx.floor(q), math.inf, below)
    y = mx.where(q > 0, _zeta_sum(s, mx.where(q > 0, q, 1.0)), below)
    return mx.where(s > 1, y, mx.where(s == 1, math.inf, math.nan))


def polygamma(n: int, x: mx.array) -> mx.array:
    """The n-th derivative of digamma, n > 0."""
    return (-1) ** (n + 1) * math.factorial(n) * zeta(mx.array(n + 1.0), x)


def gammainc(a: mx.array, x: mx.array) -> mx.array:
    """The lower incomplete gamma function over Gamma(a); operands broadcast."""
    lower, part = _gamma_part(a, x)
    return mx.where(lower, part, 1 - part)


def gammaincc(a: mx.array, x: mx.array) -> mx.array:
    """The upper incomplete gamma function over Gamma(a); operands broadcast."""
    lower, part = _gamma_part(a, x)
    return mx.where(lower, 1 - part, part)


def _gamma_part(a: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
    """Whether it is the lower part, and the smaller part of Gamma(a), as a fraction.

    With t = x exp(s) both parts are integrals of exp(a s - x (exp(s) - 1)) from s = 0,
    to -inf and to inf; s = exp(v - exp(-v)) makes them sums over equidistant v.
    """
    valid = (a >= 0) & (x >= 0) & ~((a == 0) & (x == 0))
    lower = x < mx.maximum(a, 1)
    alpha = mx.where(valid & (a > 0) & mx.isfinite(a), a, 1.0)
    z = mx.where(valid & (x > 0) & mx.isfinite(x), x, 1.0)
    rate = mx.abs(alpha - z) + mx.sqrt(mx.where(lower, alpha, z))
    rate = mx.stop_gradient(mx.where(lower, mx.minimum(alpha, rate), rate))
    direction = mx.where(lower, -1.0, 1.0)
    total = mx.zeros(mx.broadcast_shapes(a.shape, x.shape))
    step = 0.16
    for k in range(-20, 31):
        v = k * step
        s = math.exp(v - math.exp(-v)) / rate
        weight = (1 + math.exp(-v)) * s
        shifted = direction * s
        exponent = alpha * shifted - z * mx.expm1(shifted)
        total = total + weight * mx.exp(exponent)
    # x**a exp(-x) / Gamma(a), without its large factors
    small = alpha * mx.log(z) - z - lgamma(alpha)
    mu = (z - alpha) / alpha
    large = alpha * (mx.log1p(mu) - mu) - _stirling(mx.maximum(alpha, 3))
    large = large + 0.5 * mx.log(alpha / (2 * math.pi))
    part = step * total * mx.exp(mx.where(alpha < 7, small, large))
    part = mx.where((x == 0) | (a == 0) | mx.isinf(x) | mx.isinf(a), 0.0, part)
    lower = mx.where(a == 0, False, mx.where(mx.isinf(a), True, lower))
    both = mx.isinf(a) & mx.isinf(x)
    return lower, mx.where(valid & ~both, part, math.nan)
