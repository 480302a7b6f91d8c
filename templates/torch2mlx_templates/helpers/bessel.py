"""Bessel functions of order 0 and 1, and Airy's, of real numbers in single precision.

Integrals of smooth functions that vanish at their ends, as sums over equal steps.
"""

from __future__ import annotations

import math

import mlx.core as mx


def _bessel_jy(x: mx.array, order: int) -> tuple[mx.array, mx.array]:
    """J and Y of order 0 or 1, for x >= 2.

    Their integral of exp(ix cosh(t)) along the path cosh(t) = 1 + iu**2, where it
    decays like exp(-x u**2).
    """
    step = 0.25 / mx.sqrt(x)
    real, imag = mx.zeros_like(x), mx.zeros_like(x)
    for k in range(18):
        u2 = mx.square(k * step)
        size = mx.exp(-x * u2) * (mx.square(u2) + 4) ** -0.25
        phase = 0.5 * mx.arctan2(mx.array(2.0), -u2)
        if order == 1:
            size = size * mx.sqrt(1 + mx.square(u2))
            phase = phase + 0.5 * math.pi - mx.arctan(u2)
        size = size * (0.5 if k == 0 else 1.0)
        real, imag = real + size * mx.cos(phase), imag - size * mx.sin(phase)
    scale = 4 / math.pi * step
    sine, cosine = mx.sin(x), mx.cos(x)
    return (
        scale * (real * cosine - imag * sine),
        scale * (real * sine + imag * cosine),
    )


def bessel_j(x: mx.array, order: int) -> mx.array:
    """The Bessel function J of order 0 or 1."""
    z = mx.abs(x)
    q = mx.square(mx.minimum(z, 2)) / 4
    term = mx.ones_like(q)
    series = term
    for k in range(1, 8):
        term = -term * q / (k * (k + order))
        series = series + term
    if order == 1:
        series = series * z / 2
    y = mx.where(z < 2, series, _bessel_jy(mx.maximum(z, 2), order)[0])
    return mx.where(x < 0, -y, y) if order == 1 else y


def bessel_y(x: mx.array, order: int) -> mx.array:
    """The Bessel function Y of order 0 or 1: -inf at 0, nan below."""
    z = mx.minimum(x, 2)
    q = mx.square(z) / 4
    term = mx.ones_like(q)
    harmonic = [sum(1 / j for j in range(1, k + 1)) for k in range(9)]
    series = term * (harmonic[0] + harmonic[order])
    for k in range(1, 8):
        term = -term * q / (k * (k + order))
        series = series + term * (harmonic[k] + harmonic[k + order])
    log = 2 * (mx.log(z / 2) + 0.5772156649) * bessel_j(z, order)
    near = (log - (series if order == 0 else 2 / z + series * z / 2)) / math.pi
    y = mx.where(x < 2, near, _bessel_jy(mx.maximum(x, 2), order)[1])
    return mx.where(x > 0, y, mx.where(x == 0, -math.inf, math.nan))


def scaled_bessel_i(x: mx.array, order: int) -> mx.array:
    """The modified Bessel function I of order 0 or 1, times exp(-|x|)."""
    x = mx.clip(x, -1e30, 1e30)
    z = mx.abs(x)
    limit = mx.minimum(mx.sqrt(8.5 / z), 1)  # beyond it the integrand is 0 or ends
    limit = mx.stop_gradient(2 * mx.arcsin(limit))
    total = mx.zeros_like(z)
    for k in range(12):
        angle = limit * (k + 0.5) / 12
        term = mx.exp(-2 * z * mx.square(mx.sin(angle / 2)))
        total = total + (term * mx.square(mx.sin(angle)) if order == 1 else term)
    value = limit / (12 * math.pi) * total
    return x * value if order == 1 else value


def bessel_i(x: mx.array, order: int) -> mx.array:
    """The modified Bessel function I of order 0 or 1."""
    half = mx.exp(mx.abs(x) / 2)  # the whole one may be too large a number
    return scaled_bessel_i(x, order) * half * half


def scaled_bessel_k(x: mx.array, order: int) -> mx.array:
    """The modified Bessel function K of order 0 or 1, times exp(x).

    It is inf at 0 and nan below.
    """
    z = mx.clip(x, 0.01, 1e30)
    limit = 2 * mx.arcsinh(mx.sqrt(8.5 / z))  # beyond it the integrand is 0
    total = 0.5 * mx.ones_like(z)
    for k in range(1, 24):
        t = limit * k / 24
        term = mx.exp(-2 * z * mx.square(mx.sinh(t / 2)))
        total = total + (term * mx.cosh(t) if order == 1 else term)
    far = limit / 24 * total
    low = mx.minimum(mx.maximum(x, 0), 0.01)
    log, q = mx.log(low / 2) + 0.5772156649, mx.square(low) / 4
    near = 1 / low + low * (0.5 * log - 0.25) if order == 1 else q - log * (1 + q)
    y = mx.where(x < 0.01, mx.exp(low) * near, far)
    return mx.where(x > 0, y, mx.where(x == 0, math.inf, math.nan))


def bessel_k(x: mx.array, order: int) -> mx.array:
    """The modified Bessel function K of order 0 or 1."""
    return mx.exp(-x) * scaled_bessel_k(x, order)


def airy_ai(x: mx.array) -> mx.array:
    """Airy's function Ai, a solution of y'' = x y."""
    z = mx.clip(x, -1, 1)
    cube = z * z * z
    even, odd = mx.ones_like(z), z
    first, second = even, odd
    for k in range(3, 13, 3):
        even, odd = even * cube / (k * (k - 1)), odd * cube / (k * (k + 1))
        first, second = first + even, second + odd
    near = 0.3550280539 * first - 0.2588194038 * second

    root = mx.sqrt(mx.maximum(mx.abs(x), 1))
    zeta = 2 / 3 * root * root * root
    step = 0.2 / mx.sqrt(root)
    right, left = mx.zeros_like(x), mx.zeros_like(x)
    for k in range(24):
        t = k * step
        square, wave = root * t * t, mx.cos(t * t * t / 3) * (0.5 if k == 0 else 1.0)
        right = right + mx.exp(-square) * wave
        turned = mx.cos(math.pi / 3 - zeta - 0.5 * square)
        left = left + mx.exp(-math.sqrt(0.75) * square) * wave * turned
    far = mx.where(x > 0, mx.exp(-zeta) * right, 2 * left) * step / math.pi
    return mx.where(mx.abs(x) < 1, near, far)


def spherical_bessel_j0(x: mx.array) -> mx.array:
    """`sin(x) / x`, 1 at 0."""
    value = mx.sin(x) / mx.where(x == 0, 1, x)
    return mx.where(x == 0, 1, mx.where(mx.isinf(x), 0, value))
