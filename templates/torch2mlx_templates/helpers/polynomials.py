"""Orthogonal polynomials, by their recurrence; degrees and places broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx


def _polynomial(
    n: mx.array | float,
    first: mx.array,
    following: Callable[[int, mx.array, mx.array], mx.array],
) -> mx.array:
    """The polynomial of degree n, 0 below degree 0.

    Args:
        n: Degrees, rounded towards zero.
        first: The polynomial of degree 1; that of degree 0 is 1.
        following: Given k and those of degrees k and k - 1, that of degree k + 1.
    """
    n = mx.trunc(mx.array(n))
    before, current = mx.ones_like(first), first
    y = mx.where(n < 0, 0, mx.where(n == 0, before, first))
    largest: Any = mx.max(n).item() if n.size else 0
    for k in range(1, int(largest)):
        before, current = current, following(k, current, before)
        y = mx.where(n == k + 1, current, y)
    return y


def chebyshev_t(x: mx.array, n: mx.array | float) -> mx.array:
    """The Chebyshev polynomial of the first kind."""
    return _polynomial(n, x, lambda k, p, q: 2 * x * p - q)


def chebyshev_u(x: mx.array, n: mx.array | float) -> mx.array:
    """The Chebyshev polynomial of the second kind."""
    return _polynomial(n, 2 * x, lambda k, p, q: 2 * x * p - q)


def chebyshev_v(x: mx.array, n: mx.array | float) -> mx.array:
    """The Chebyshev polynomial of the third kind."""
    return _polynomial(n, 2 * x - 1, lambda k, p, q: 2 * x * p - q)


def chebyshev_w(x: mx.array, n: mx.array | float) -> mx.array:
    """The Chebyshev polynomial of the fourth kind."""
    return _polynomial(n, 2 * x + 1, lambda k, p, q: 2 * x * p - q)


def hermite_h(x: mx.array, n: mx.array | float) -> mx.array:
    """The physicist's Hermite polynomial."""
    return _polynomial(n, 2 * x, lambda k, p, q: 2 * (x * p - k * q))


def hermite_he(x: mx.array, n: mx.array | float) -> mx.array:
    """The probabilist's Hermite polynomial."""
    return _polynomial(n, x, lambda k, p, q: x * p - k * q)


def laguerre_l(x: mx.array, n: mx.array | float) -> mx.array:
    """The Laguerre polynomial."""
    return _polynomial(
        n, 1 - x, lambda k, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)
    )


def legendre_p(x: mx.array, n: mx.array | float) -> mx.array:
    """The Legendre polynomial."""
    return _polynomial(n, x, lambda k, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1))
