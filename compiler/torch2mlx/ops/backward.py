"""Gradients that a model computes itself: operators that PyTorch's autograd calls."""

from __future__ import annotations

import math
from typing import Any

import torch

from torch2mlx.lower.facade import mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.native_dropout_backward.default)
def dropout_backward(grad_output: Any, mask: Any, scale: float) -> Any:
    """The gradient of what the mask keeps."""
    return grad_output * mask * scale


@lowers(aten.sigmoid_backward.default)
def sigmoid_backward(grad_output: Any, output: Any) -> Any:
    """The gradient of a sigmoid, from its output."""
    return grad_output * output * (1 - output)


@lowers(aten.tanh_backward.default)
def tanh_backward(grad_output: Any, output: Any) -> Any:
    """The gradient of a tanh, from its output."""
    return grad_output * (1 - mx.square(output))


@lowers(aten.threshold_backward.default)
def threshold_backward(grad_output: Any, x: Any, threshold: Any) -> Any:
    """The gradient where `x` is above the threshold: of relu with 0."""
    return mx.where(x <= threshold, 0, grad_output)


@lowers(aten.silu_backward.default)
def silu_backward(grad_output: Any, x: Any) -> Any:
    """The gradient of silu."""
    gate = mx.sigmoid(x)
    return grad_output * gate * (1 + x * (1 - gate))


@lowers(
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices_backward.default,
)
def max_pool_backward(
    grad_output: Any,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    indices: Any,
) -> Any:
    """Each gradient added where its maximum was in the flattened image."""
    axes = len(kernel_size)
    batch, sizes = x.shape[:-axes], x.shape[-axes:]
    count: Any = math.prod(batch)
    area: Any = math.prod(sizes)
    indices = indices.reshape(count, -1)
    places = mx.arange(count)[:, None] * area + indices
    flat = mx.zeros((count * area,), dtype=grad_output.dtype)
    flat = flat.at[places].add(grad_output.reshape(count, -1))
    return flat.reshape(*x.shape)
