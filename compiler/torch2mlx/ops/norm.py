"""Normalisation by computed statistics or weights, and over several axes."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import Refuse, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import empty

aten = torch.ops.aten

EPS = {mlx.core.float16: 2.0**-10, mlx.core.bfloat16: 2.0**-7}


@lowers(aten.batch_norm.default)
def batch_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """Each channel of [N, C, *S] by its running statistics, or the batch's."""
    if not training and running_mean is not None:
        y = x if x.ndim < 3 else channels_last(x)
        y = (y - running_mean) * mx.rsqrt(running_var + eps)
        y = y if weight is None else y * weight
        y = y if bias is None else y + bias
        return y if x.ndim < 3 else channels_first(y)
    mean, var = _statistics(x, (0, *range(2, x.ndim)))
    return _affine((x - mean) * mx.rsqrt(var + eps), weight, bias)


@lowers(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
) -> Any:
    """`batch_norm` after decomposition; the two statistics it also returns are empty."""
    y = batch_norm(
        x, weight, bias, running_mean, running_var, False, momentum, eps, True
    )
    return [y, mx.zeros((0,)), mx.zeros((0,))]


@lowers(aten._native_batch_norm_legit.no_stats)
def batch_norm_no_stats(
    x: Any, weight: Any, bias: Any, training: bool, momentum: float, eps: float
) -> Any:
    """`batch_norm` by the batch's statistics, with its mean and 1 / standard deviation."""
    mean, var = _statistics(x, (0, *range(2, x.ndim)))
    scale = mx.rsqrt(var + eps)
    y = _affine((x - mean) * scale, weight, bias)
    return [y, mean.flatten(), scale.flatten()]


@lowers(aten._native_batch_norm_legit_functional.default)
def batch_norm_functional(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """`batch_norm` that also returns the statistics it used and the new running ones."""
    if not training:
        y = batch_norm(
            x, weight, bias, running_mean, running_var, False, momentum, eps, True
        )
        return [y, mx.zeros((0,)), mx.zeros((0,)), running_mean, running_var]
    results = batch_norm_no_stats(x, weight, bias, training, momentum, eps)
    var = mx.var(x, axis=(0, *range(2, x.ndim)), ddof=1)
    means = (1 - momentum) * running_mean + momentum * results[1]
    return [*results, means, (1 - momentum) * running_var + momentum * var]


@lowers(aten.native_batch_norm.default, aten._native_batch_norm_legit.default)
def native_batch_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """`batch_norm` that also returns the statistics it used."""
    if training:
        return batch_norm_no_stats(x, weight, bias, training, momentum, eps)
    return batch_norm_inference(
        x, weight, bias, running_mean, running_var, momentum, eps
    )


@lowers(aten._batch_norm_with_update.default)
def batch_norm_with_update(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
) -> Any:
    """`batch_norm_no_stats`, with an empty array for what a GPU would reserve."""
    results = batch_norm_no_stats(x, weight, bias, True, momentum, eps)
    return [*results, mx.zeros((0,), dtype=mx.uint8)]


@lowers(aten.layer_norm.default)
def layer_norm(
    x: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """`mx.fast.layer_norm`, whose weights are vectors over the last axis."""
    axes = len(normalized_shape)
    if axes == 1:
        return mx.fast.layer_norm(x, weight, bias, eps)
    weight, bias = (w if w is None else w.flatten() for w in (weight, bias))
    y = mx.fast.layer_norm(x.flatten(-axes, -1), weight, bias, eps)
    return mx.unflatten(y, -1, tuple(normalized_shape))


@lowers(aten.native_layer_norm.default)
def native_layer_norm(
    x: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> Any:
    """`layer_norm` with the mean and 1 / standard deviation."""
    mean, var = _statistics(x, tuple(range(-len(normalized_shape), 0)))
    y = layer_norm(x, normalized_shape, weight, bias, eps)
    return [y, mean, mx.rsqrt(var + eps)]


@lowers(aten.rms_norm.default)
def rms_norm(
    x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """`mx.fast.rms_norm`, whose weight is a vector over the last axis."""
    axes = len(normalized_shape)
    if axes == 1:
        return mx.fast.rms_norm(x, weight, rms_eps(x, eps))
    weight = weight if weight is None else weight.flatten()
    y = mx.fast.rms_norm(x.flatten(-axes, -1), weight, rms_eps(x, eps))
    return mx.unflatten(y, -1, tuple(normalized_shape))


@lowers(aten.group_norm.default)
def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Each group of channels of [N, C, *S] by its own statistics."""
    if empty(x.shape):
        return x
    y = mx.fast.layer_norm(x.reshape(x.shape[0], num_groups, -1), None, None, eps)
    return _affine(y.reshape(x.shape), weight, bias)


@lowers(aten.native_group_norm.default)
def native_group_norm(
    x: Any, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> Any:
    """`group_norm` with the mean and 1 / standard deviation of each group."""
    if empty(x.shape):
        return [x, mx.zeros((N, group)), mx.full((N, group), mx.nan)]
    grouped = x.reshape(x.shape[0], group, -1)
    mean, var = _statistics(grouped, (2,))
    y = group_norm(x, group, weight, bias, eps)
    return [y, mean[..., 0], mx.rsqrt(var + eps)[..., 0]]


@lowers(aten.instance_norm.default)
def instance_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """Each channel of each image of [N, C, *S] by its own statistics, or the running ones."""
    if not use_input_stats:
        return batch_norm(
            x, weight, bias, running_mean, running_var, False, momentum, eps, True
        )
    mean, var = _statistics(x, tuple(range(2, x.ndim)))
    return _affine((x - mean) * mx.rsqrt(var + eps), weight, bias)


def rms_eps(x: Any, eps: float | None) -> float:
    """The epsilon of an RMS norm: PyTorch's default is the one of the dtype."""
    if eps is not None:
        return eps
    if x.dtype not in EPS and x.dtype != mlx.core.float32:
        raise Refuse(f"RMS norm of {x.dtype} is not mapped")
    return EPS.get(x.dtype, 2.0**-23)


def _statistics(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    return mx.mean(x, axis=axes, keepdims=True), mx.var(x, axis=axes, keepdims=True)


def _channels(vector: Any, ndim: int) -> Any:
    """A vector over channels, to be broadcast over [N, C, *S]."""
    return vector if ndim <= 2 else vector.reshape(-1, *[1] * (ndim - 2))


def _affine(y: Any, weight: Any, bias: Any) -> Any:
    """`y` [N, C, *S] times the weight plus the bias of its channel."""
    if weight is not None:
        y = y * _channels(weight, y.ndim)
    return y if bias is None else y + _channels(bias, y.ndim)
