"""Operators of `torch2mlx.ir.operators`: what fusions find and PyTorch has no operator for."""

from __future__ import annotations

from typing import Any

import mlx.core

from torch2mlx.ir.operators import (
    ATTENTION,
    GATHER_MM,
    QUICK_GELU,
    ROPE,
    ROTATE,
    SWIGLU,
    TRI,
)
from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers, rename

rename({QUICK_GELU: "nn.gelu_fast_approx", SWIGLU: "helpers.swiglu"})


@lowers(ATTENTION)
def attention(query: Any, key: Any, value: Any, mask: Any, scale: float | None) -> Any:
    """`mx.fast.scaled_dot_product_attention` as it is: PyTorch and MLX differ only where a query sees no key."""
    if scale is None:
        scale = query.shape[-1] ** -0.5
    return mx.fast.scaled_dot_product_attention(
        query, key, value, scale=scale, mask=mask
    )


@lowers(ROPE)
def rope(
    x: Any,
    dims: int,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: int,
    freqs: Any,
) -> Any:
    """`mx.fast.rope`, which wants at least 3 axes."""
    options = {} if freqs is None else {"freqs": freqs}
    y = mx.fast.rope(
        x[None] if x.ndim == 2 else x,
        dims,
        traditional=traditional,
        base=base,
        scale=scale,
        offset=offset,
        **options,
    )
    return y[0] if x.ndim == 2 else y


@lowers(ROTATE)
def rotate(x: Any, cos: Any, sin: Any, traditional: bool) -> Any:
    """Rotation by angles that depend on the input."""
    if traditional:
        return helpers.rotate_pairs(x, cos, sin)
    return helpers.rotate_halves(x, cos, sin)


@lowers(GATHER_MM)
def gather_mm(x: Any, weight: Any, index: Any, sorted_indices: bool) -> Any:
    """`mx.gather_mm`, which reads each matrix where it is."""
    options = {"sorted_indices": True} if sorted_indices else {}
    return helpers.gather_mm(x, weight, index, **options)


@lowers(TRI)
def tri(n: Any, m: Any, k: int) -> Any:
    """`mx.tri` of booleans."""
    options = {} if k == 0 else {"k": k}
    return mx.tri(*_sizes(n, m), **options, dtype=mlx.core.bool_)


def _sizes(n: Any, m: Any) -> tuple[Any, ...]:
    try:
        return (n,) if n == m else (n, m)
    except Refuse:
        return n, m  # they may be equal or not
