"""Random numbers: of the same distribution, never the same numbers as PyTorch's."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.rand.default)
def rand(size: Any, dtype: Any = None) -> Any:
    """`mx.random.uniform` over [0, 1)."""
    return mx.random.uniform(shape=tuple(size), **_dtype(dtype))


@lowers(aten.rand_like.default)
def rand_like(x: Any, dtype: Any = None) -> Any:
    """`mx.random.uniform` over [0, 1), of the shape of `x`."""
    return rand(x.shape, dtype or x.dtype)


@lowers(aten.uniform.default)
def uniform(x: Any, to: Any = 1) -> Any:
    """`mx.random.uniform` over [0, to), of the shape of `x`."""
    return mx.random.uniform(0, to, x.shape, **_dtype(x.dtype))


@lowers(aten.randn.default)
def randn(size: Any, dtype: Any = None) -> Any:
    """`mx.random.normal`."""
    return mx.random.normal(tuple(size), **_dtype(dtype))


@lowers(aten.randn_like.default)
def randn_like(x: Any, dtype: Any = None) -> Any:
    """`mx.random.normal` of the shape of `x`."""
    return randn(x.shape, dtype or x.dtype)


@lowers(aten.randint.default)
def randint(high: Any, size: Any, dtype: Any = None) -> Any:
    """`mx.random.randint` from 0."""
    return randint_low(0, high, size, dtype)


@lowers(aten.randint.low)
def randint_low(low: Any, high: Any, size: Any, dtype: Any = None) -> Any:
    """`mx.random.randint`."""
    y = mx.random.randint(low, high, tuple(size))
    return y if dtype is None else y.astype(dtype)


@lowers(aten.randint_like.default)
def randint_like(x: Any, high: Any, dtype: Any = None) -> Any:
    """`mx.random.randint` of the shape of `x`."""
    return randint_low(0, high, x.shape, dtype or x.dtype)


@lowers(aten.randperm.default)
def randperm(n: Any) -> Any:
    """`mx.random.permutation`."""
    return mx.random.permutation(n)


@lowers(aten.bernoulli.default)
def bernoulli(x: Any) -> Any:
    """`mx.random.bernoulli` with the probabilities `x`."""
    return mx.random.bernoulli(x).astype(x.dtype)


@lowers(aten.bernoulli.p)
def bernoulli_p(x: Any, p: float) -> Any:
    """`mx.random.bernoulli` of the shape of `x`."""
    return mx.random.bernoulli(p, x.shape).astype(x.dtype)


@lowers(aten.multinomial.default)
def multinomial(x: Any, num_samples: int, replacement: bool = False) -> Any:
    """`mx.random.categorical` over the last axis; without replacement, the best after Gumbel noise."""
    if replacement or num_samples == 1:
        y = mx.random.categorical(mx.log(x), num_samples=num_samples)
    else:
        noisy = mx.log(x) + mx.random.gumbel(x.shape)
        y = mx.argsort(-noisy, axis=-1)[..., :num_samples]
    return y.astype(mlx.core.int32)


@lowers(aten.normal.Tensor_Tensor, aten.normal.Tensor_float, aten.normal.float_Tensor)
def normal(mean: Any, std: Any) -> Any:
    """`mean + std * mx.random.normal(...)`."""
    shape = mean.shape if hasattr(mean, "shape") else std.shape
    if hasattr(mean, "shape") and hasattr(std, "shape") and mean.ndim != std.ndim:
        raise Refuse("a mean and a deviation of different ranks are not mapped")
    return mean + std * mx.random.normal(shape)


@lowers(aten.normal.float_float)
def normal_float(mean: float, std: float, size: Any, dtype: Any = None) -> Any:
    """`mx.random.normal` of a mean and a deviation."""
    arguments = {"loc": (mean, 0.0), "scale": (std, 1.0)}
    written = {name: v for name, (v, default) in arguments.items() if v != default}
    return mx.random.normal(tuple(size), **_dtype(dtype), **written)


def _dtype(dtype: Any) -> dict[str, Any]:
    return {} if dtype is None or dtype == mlx.core.float32 else {"dtype": dtype}
