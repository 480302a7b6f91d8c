"""Activation functions and softmax."""

from __future__ import annotations

import math
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import mx, nn
from torch2mlx.lower.registry import lowers, rename
from torch2mlx.ops.axes import empty, lowers_any

aten = torch.ops.aten

HALF = (mlx.core.float16, mlx.core.bfloat16)

rename(
    {
        aten.relu.default: "nn.relu",
        aten.relu6.default: "nn.relu6",
        aten.mish.default: "nn.mish",
        aten.selu.default: "nn.selu",
        aten.hardswish.default: "nn.hardswish",
        aten.log_sigmoid.default: "nn.log_sigmoid",
    }
)


@lowers(aten.silu.default)
def silu(x: Any) -> Any:
    """`nn.silu`."""
    if x.dtype == mlx.core.complex64:
        return x / (1 + mx.exp(-x))
    return nn.silu(x)


@lowers(aten.gelu.default)
def gelu(x: Any, approximate: str = "none") -> Any:
    """`nn.gelu`, or `nn.gelu_approx` for the one with tanh."""
    return nn.gelu_approx(x) if approximate == "tanh" else nn.gelu(x)


@lowers_any(aten.softmax.int, aten._softmax.default, aten.special_softmax.default)
def softmax(x: Any, dim: int, dtype: Any = None, half_to_float: bool = False) -> Any:
    """`mx.softmax`; half floats are summed in single precision, as PyTorch does."""
    if x.ndim == 0:
        return mx.softmax(x[None])[0]
    return mx.softmax(_cast(x, dtype), axis=dim, **_precise(x, dtype))


@lowers(aten._safe_softmax.default)
def safe_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """`mx.softmax`, 0 where every element is -inf."""
    masked = mx.all(x == -math.inf, axis=dim, keepdims=True)
    return mx.where(masked, 0, softmax(x, dim, dtype))


@lowers(aten._softmax_backward_data.default)
def softmax_backward(
    grad_output: Any, output: Any, dim: int, input_dtype: Any = None
) -> Any:
    """The gradient of `softmax` by its input."""
    product = grad_output * output
    return product - output * mx.sum(product, axis=dim, keepdims=True)


@lowers(aten._log_softmax_backward_data.default)
def log_softmax_backward(
    grad_output: Any, output: Any, dim: int, input_dtype: Any = None
) -> Any:
    """The gradient of `log_softmax` by its input."""
    total = mx.sum(grad_output, axis=dim, keepdims=True)
    return grad_output - mx.exp(output) * total


@lowers_any(
    aten.log_softmax.int, aten._log_softmax.default, aten.special_log_softmax.default
)
def log_softmax(
    x: Any, dim: int, dtype: Any = None, half_to_float: bool = False
) -> Any:
    """`nn.log_softmax`."""
    if x.ndim == 0:
        return log_softmax(x[None], 0, dtype)[0]
    x = _cast(x, dtype)
    if empty(x.shape):
        return x
    if x.dtype in HALF:
        x = x.astype(mlx.core.float32)
    return nn.log_softmax(x, axis=dim)


@lowers(aten.leaky_relu.default)
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """`nn.leaky_relu`; a slope above 1 makes the line below 0 the lower one."""
    if negative_slope > 1:
        return mx.where(x > 0, x, negative_slope * x)
    if negative_slope == 0.01:
        return nn.leaky_relu(x)
    return nn.leaky_relu(x, negative_slope)


@lowers(aten.elu.default)
def elu(x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    """`nn.elu`."""
    if input_scale != 1:
        y = mx.where(x > 0, x, alpha * mx.expm1(mx.minimum(x, 0) * input_scale))
    else:
        y = nn.elu(x) if alpha == 1 else nn.elu(x, alpha)
    return y if scale == 1 else scale * y


@lowers(aten.celu.default)
def celu(x: Any, alpha: float = 1.0) -> Any:
    """`nn.celu`."""
    return nn.celu(x) if alpha == 1 else nn.celu(x, alpha)


@lowers(aten.prelu.default)
def prelu(x: Any, weight: Any) -> Any:
    """`nn.prelu`, with one slope or one for each channel of [N, C, *S]."""
    if weight.ndim and x.ndim > 2 and weight.shape[0] != 1:
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    elif x.ndim == 0:
        weight = weight.reshape(())
    return nn.prelu(x, weight)


@lowers(aten.hardtanh.default)
def hardtanh(x: Any, min_val: Any = -1, max_val: Any = 1) -> Any:
    """`mx.clip`; between 0 and 6 it is `nn.relu6`."""
    if min_val == 0 and max_val == 6:
        return nn.relu6(x)
    return mx.clip(x, min_val, max_val)


@lowers(aten.hardsigmoid.default)
def hardsigmoid(x: Any) -> Any:
    """`relu6(x + 3) / 6`."""
    return nn.relu6(x + 3) / 6


@lowers(aten.softplus.default)
def softplus(x: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """`nn.softplus`; above the threshold it is `x` in PyTorch, as it is by rounding from 20 on."""
    y = nn.softplus(x) if beta == 1 else nn.softplus(beta * x) / beta
    if threshold >= 20:
        return y
    return mx.where(x > threshold / beta, x, y)


@lowers(aten.softshrink.default)
def softshrink(x: Any, lambd: Any = 0.5) -> Any:
    """`nn.softshrink`."""
    return mx.where(mx.isnan(x), x, nn.softshrink(x, lambd))


@lowers(aten.hardshrink.default)
def hardshrink(x: Any, lambd: Any = 0.5) -> Any:
    """0 where the modulus is at most `lambd`."""
    return mx.where(mx.abs(x) <= lambd, 0, x)


@lowers(aten.threshold.default)
def threshold(x: Any, threshold: Any, value: Any) -> Any:
    """`value` where `x` does not exceed the threshold."""
    return mx.where(x <= threshold, value, x)


@lowers(aten.glu.default)
def glu(x: Any, dim: int = -1) -> Any:
    """`nn.glu`."""
    return nn.glu(x) if dim in (-1, x.ndim - 1) else nn.glu(x, axis=dim)


@lowers(aten.rrelu.default)
def rrelu(
    x: Any, lower: float = 0.125, upper: float = 1 / 3, training: bool = False
) -> Any:
    """A leaky ReLU of random slopes; in evaluation their mean is the slope."""
    if training:
        slope = mx.random.uniform(lower, upper, x.shape)
        return mx.where(x > 0, x, slope.astype(x.dtype) * x)
    return leaky_relu(x, (lower + upper) / 2)


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else x.astype(dtype)


def _precise(x: Any, dtype: Any) -> dict[str, bool]:
    return {"precise": True} if (dtype or x.dtype) in HALF else {}
