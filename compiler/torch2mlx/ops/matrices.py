"""Powers and chains of matrices, and matrices that are put together from parts."""

from __future__ import annotations

import functools
from typing import Any

import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import widened
from torch2mlx.ops.inverses import linalg_inv
from torch2mlx.ops.linalg import product
from torch2mlx.ops.shape import flip

aten = torch.ops.aten


@lowers(aten.linalg_matrix_power.default)
def linalg_matrix_power(x: Any, n: int) -> Any:
    """`x` [..., m, m] times itself."""
    return _power(x, n)


@lowers(aten.matrix_power.default)
def matrix_power(x: Any, n: int) -> Any:
    """`x` [..., m, m] times itself."""
    return _power(x, n)


@lowers(aten.linalg_multi_dot.default)
def linalg_multi_dot(tensors: Any) -> Any:
    """The product of a chain of matrices, in the order that takes the fewest steps."""
    shapes = [getattr(x, "hint", x).shape for x in tensors]
    sizes = [1 if len(shapes[0]) == 1 else shapes[0][0], *(s[-1] for s in shapes)]
    if len(shapes[-1]) == 1:
        sizes[-1] = 1

    @functools.cache
    def best(i: int, j: int) -> tuple[int, int]:
        """The cost of the product of the matrices i to j - 1, and where to cut it."""
        if j - i == 1:
            return 0, i
        return min(
            (best(i, k)[0] + best(k, j)[0] + sizes[i] * sizes[k] * sizes[j], k)
            for k in range(i + 1, j)
        )

    def chain(i: int, j: int) -> Any:
        cut = best(i, j)[1]
        return tensors[i] if j - i == 1 else product(chain(i, cut), chain(cut, j))

    return chain(0, len(tensors))


@lowers(aten.chain_matmul.default)
def chain_matmul(matrices: Any) -> Any:
    """The product of a chain of matrices."""
    return linalg_multi_dot(matrices)


@lowers(aten.matrix_exp.default, aten.linalg_matrix_exp.default)
def matrix_exp(x: Any) -> Any:
    """The matrix exponential of [..., n, n]."""
    return helpers.matrix_exp(x)


@lowers(aten.linalg_vander.default)
def linalg_vander(x: Any, N: Any = None) -> Any:
    """The powers 0 to N - 1 of each element, as a new last axis."""
    x = x if x.ndim else x[None]
    columns = x.shape[-1] if N is None else N
    x = widened(x)[..., None]
    return mx.cumprod(mx.where(mx.arange(columns) == 0, 1, x), axis=-1)


@lowers(aten.vander.default)
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    """The powers of each element, the highest first."""
    powers = linalg_vander(x, N)
    return powers if increasing else flip(powers, [-1])


@lowers(aten.block_diag.default)
def block_diag(tensors: Any) -> Any:
    """Matrices along the diagonal of one."""
    return helpers.block_diag([x if x.ndim == 2 else x.reshape(1, -1) for x in tensors])


@lowers(aten.cartesian_prod.default)
def cartesian_prod(tensors: Any) -> Any:
    """All combinations of one element of each vector."""
    if len(tensors) == 1:
        return tensors[0]
    grid = mx.meshgrid(*tensors, indexing="ij")
    return mx.stack(grid, axis=-1).reshape(-1, len(tensors))


@lowers(aten.combinations.default)
def combinations(x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All choices of `r` elements."""
    if r == 0:
        return mx.zeros((0,), dtype=x.dtype)
    options = {"with_replacement": True} if with_replacement else {}
    return helpers.combinations(x, r, **options)


@lowers(aten.rot90.default)
def rot90(x: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """`x` turned by `k` quarters from the first of two axes to the second."""
    first, second = dims
    if k % 4 == 0:
        return x
    if k % 4 == 2:
        return flip(x, dims)
    return flip(x, [second if k % 4 == 1 else first]).swapaxes(first, second)


def _power(x: Any, n: int) -> Any:
    if n == 0:
        return mx.broadcast_to(mx.eye(x.shape[-1], dtype=x.dtype), x.shape)
    square, n = (linalg_inv(x), -n) if n < 0 else (x, n)
    result = None
    while n:
        if n % 2:
            result = square if result is None else product(result, square)
        n //= 2
        square = product(square, square) if n else square
    return result
