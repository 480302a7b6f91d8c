"""Convolution layers. MLX's weights are (out, *kernel, in / groups)."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer
from torch2mlx.lower.spatial import as_written, options
from torch2mlx.ops.conv import (
    Room,
    pad_for,
    padding_exceeds_kernel,
    transposed_kernel,
)

aten = torch.ops.aten


@layer(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """`nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`."""
    out, channels, *kernel = weight.shape
    axes = len(kernel)
    if groups > 1 and axes == 3:
        raise Decline("nn.Conv3d has no groups")
    if x.ndim == axes + 1:
        return conv(x[None], weight, bias, stride, padding, dilation, groups)[0]
    arguments = options(
        axes, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1)
    )
    if groups > 1:
        arguments["groups"] = groups
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    return _called(
        module,
        x,
        (channels * groups, out, kernel),
        arguments,
        channels_last(weight),
        bias,
    )


@layer(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def conv_named_padding(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A convolution layer with padding "same" or "valid"."""
    x, padding = pad_for(x, weight, padding, dilation)
    return conv(x, weight, bias, stride, padding, dilation, groups)


@layer(
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """`nn.ConvTranspose1d`, `nn.ConvTranspose2d` or `nn.ConvTranspose3d`."""
    channels, out, *kernel = weight.shape
    axes = len(kernel)
    if groups > 1:
        raise Decline("nn.ConvTranspose has no groups")
    room = Room.of(axes, stride, padding, output_padding)
    if padding_exceeds_kernel(weight, room.padding, dilation):
        raise Decline("MLX crops no more than the kernel adds")
    if x.ndim == axes + 1:
        return conv_transpose(
            x[None], weight, bias, stride, padding, output_padding, groups, dilation
        )[0]
    arguments = options(
        axes, stride=(stride, 1), padding=(room.padding, 0), dilation=(dilation, 1)
    )
    module = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    return _called(
        module,
        x,
        (channels, out, kernel),
        arguments,
        transposed_kernel(weight, 1),
        bias,
        room,
    )


@layer(aten.convolution.default)
def convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    """Any convolution layer, after decomposition."""
    if transposed:
        return conv_transpose(
            x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(x, weight, bias, stride, padding, dilation, groups)


def _called(
    module: Any,
    x: Any,
    sizes: Any,
    arguments: dict[str, Any],
    weight: Any,
    bias: Any,
    room: Room | None = None,
) -> Any:
    """The layer on `x`: (in, out, kernel), options, and weights in MLX's layout."""
    channels, out, kernel = sizes
    if bias is None:
        arguments["bias"] = False
    convolve = module(channels, out, as_written(tuple(kernel)), **arguments)
    convolve.weight = weight
    if bias is not None:
        convolve.bias = bias
    if room is None:
        return channels_first(convolve(channels_last(x)))
    return channels_first(room.crop(convolve(room.widen(channels_last(x)))))
