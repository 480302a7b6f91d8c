"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import Decline, mx, nn
from torch2mlx.lower.registry import layer
from torch2mlx.ops.norm import rms_eps

aten = torch.ops.aten


@layer(aten.batch_norm.default)
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
    """`nn.BatchNorm`, over [N, C, *S]."""
    if training or running_mean is None or running_var is None:
        raise Decline("it has no running statistics")
    if (weight is None) != (bias is None):
        raise Decline("nn.BatchNorm has both a weight and a bias, or none")
    arguments = _options(eps=(eps, 1e-5), momentum=(momentum, 0.1))
    if weight is None:
        arguments["affine"] = False
    norm = nn.BatchNorm(running_mean.shape[0], **arguments)
    if weight is not None:
        norm.weight, norm.bias = weight, bias
    norm.running_mean, norm.running_var = running_mean, running_var
    if x.ndim == 2:
        return norm(x)
    y = channels_last(x)
    if x.ndim == 5:  # nn.BatchNorm takes at most four axes
        batch, channels, *sizes = x.shape
        return channels_first(norm(y.flatten(1, 3)).reshape(batch, *sizes, channels))
    return channels_first(norm(y))


@layer(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
) -> Any:
    """`nn.BatchNorm` after decomposition; the two statistics it also returns are empty."""
    y = batch_norm(
        x, weight, bias, running_mean, running_var, False, momentum, eps, True
    )
    return [y, mx.zeros((0,)), mx.zeros((0,))]


@layer(aten.layer_norm.default)
def layer_norm(
    x: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """`nn.LayerNorm`, over the last axis."""
    if len(normalized_shape) != 1:
        raise Decline("nn.LayerNorm is over one axis")
    arguments = _options(eps=(eps, 1e-5))
    if weight is None:
        if bias is not None:
            raise Decline("nn.LayerNorm has no bias without a weight")
        arguments["affine"] = False
    elif bias is None:
        arguments["bias"] = False
    norm = nn.LayerNorm(normalized_shape[0], **arguments)
    if weight is not None:
        norm.weight = weight
    if bias is not None:
        norm.bias = bias
    return norm(x)


@layer(aten.group_norm.default)
def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """`nn.GroupNorm`, over [N, C, *S]."""
    if (weight is None) != (bias is None):
        raise Decline("nn.GroupNorm has both a weight and a bias, or none")
    arguments = _options(eps=(eps, 1e-5))
    if weight is None:
        arguments["affine"] = False
    norm = nn.GroupNorm(
        num_groups, _channels(x, weight), **arguments, pytorch_compatible=True
    )
    if weight is not None:
        norm.weight, norm.bias = weight, bias
    return channels_first(norm(channels_last(x)))


@layer(aten.instance_norm.default)
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
    """`nn.InstanceNorm`, over [N, C, *S]."""
    if not use_input_stats or running_mean is not None:
        raise Decline("nn.InstanceNorm has no running statistics")
    if (weight is None) != (bias is None):
        raise Decline("nn.InstanceNorm has both a weight and a bias, or none")
    arguments = _options(eps=(eps, 1e-5))
    if weight is not None:
        arguments["affine"] = True
    norm = nn.InstanceNorm(_channels(x, weight), **arguments)
    if weight is not None:
        norm.weight, norm.bias = weight, bias
    return channels_first(norm(channels_last(x)))


@layer(aten.rms_norm.default)
def rms_norm(
    x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """`nn.RMSNorm`, over the last axis."""
    if weight is None or len(normalized_shape) != 1:
        raise Decline("nn.RMSNorm has a weight, over one axis")
    norm = nn.RMSNorm(normalized_shape[0], **_options(eps=(rms_eps(x, eps), 1e-5)))
    norm.weight = weight
    return norm(x)


def _channels(x: Any, weight: Any) -> Any:
    return x.shape[1] if weight is None else weight.shape[0]


def _options(**values: tuple[Any, Any]) -> dict[str, Any]:
    """Keyword arguments that differ from MLX's defaults: name -> (value, default)."""
    return {
        name: value for name, (value, default) in values.items() if value != default
    }
