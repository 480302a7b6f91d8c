"""Matrix factorisations in the forms that LAPACK stores."""

from __future__ import annotations

import mlx.core as mx


def row_order(pivots: mx.array, rows: int) -> mx.array:
    """[..., k] -> [..., rows]: where each row was before the swaps of LU.

    Row i was swapped with row `pivots[i]`, which counts from 1.
    """
    places = mx.arange(rows)
    order = mx.broadcast_to(places, (*pivots.shape[:-1], rows))
    for i in range(pivots.shape[-1]):
        other = pivots[..., i : i + 1].astype(mx.int32) - 1
        there = mx.take_along_axis(order, other, axis=-1)
        order = mx.where(places == other, order[..., i : i + 1], order)
        order = mx.where(places == i, there, order)
    return order


def lu_factors(lu: mx.array) -> tuple[mx.array, mx.array]:
    """L [..., m, k] and U [..., k, n] of the packed [..., m, n], k = min(m, n)."""
    k = min(lu.shape[-2:])
    lower = mx.tril(lu[..., :k], -1) + mx.eye(lu.shape[-2], k)
    return lower, mx.triu(lu[..., :k, :])


def lu_solve(
    lu: mx.array, pivots: mx.array, b: mx.array, transpose: bool = False
) -> mx.array:
    """Solves A @ x = b, or A.T @ x = b, for the A that was factored; b [..., n, k]."""
    n = lu.shape[-1]
    swap = mx.eye(n)[row_order(pivots, n)]
    lower, upper = lu_factors(lu)
    if transpose:
        y = mx.linalg.solve_triangular(upper.swapaxes(-1, -2), b, stream=mx.cpu)
        lower = lower.swapaxes(-1, -2)
        y = mx.linalg.solve_triangular(lower, y, upper=True, stream=mx.cpu)
        return swap.swapaxes(-1, -2) @ y
    y = mx.linalg.solve_triangular(lower, swap @ b, stream=mx.cpu)
    return mx.linalg.solve_triangular(upper, y, upper=True, stream=mx.cpu)


def complete_qr(x: mx.array) -> tuple[mx.array, mx.array]:
    """QR with a square Q: [..., m, n] -> [..., m, m] and [..., m, n]."""
    m, n = x.shape[-2:]
    wide = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, max(0, m - n))])
    q, r = mx.linalg.qr(wide, stream=mx.cpu)
    return q, r[..., :n]


def multiply_by_q(
    reflectors: mx.array, tau: mx.array, x: mx.array, transpose: bool = False
) -> mx.array:
    """`q @ x`, or `q.T @ x`, for the Q that a QR factorisation stores as reflections.

    Args:
        reflectors: [..., m, n]; below the diagonal are vectors, which begin with a 1.
        tau: Their factors, [..., k].
        x: [..., m, p].
        transpose: Whether to multiply by the transpose.
    """
    m, n = reflectors.shape[-2:]
    vectors = mx.tril(reflectors, -1) + mx.eye(m, n)
    steps = range(tau.shape[-1])
    for i in steps if transpose else reversed(steps):
        v = vectors[..., i : i + 1]
        x = x - tau[..., i, None, None] * (v @ (v.swapaxes(-1, -2) @ x))
    return x


def householder_product(reflectors: mx.array, tau: mx.array) -> mx.array:
    """The first n columns of Q for reflections [..., m, n] and factors [..., k]."""
    m, n = reflectors.shape[-2:]
    return multiply_by_q(reflectors, tau, mx.eye(m, n))
