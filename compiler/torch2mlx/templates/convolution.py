"""Convolutions with batch normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from torch2mlx.templates.activations import activation as activation_called


class ConvBlock(nn.Module):
    """A convolution, a BatchNorm and an activation.

    In PyTorch: `nn.Sequential(nn.Conv2d(...), nn.BatchNorm2d(...), nn.ReLU())`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel.
        stride: Step of the kernel.
        padding: Zeros around the image; None takes `kernel_size // 2`, which keeps its size at
            stride 1 and an odd kernel.
        groups: Number of groups of channels.
        norm: Whether there is a BatchNorm; without one the convolution has a bias.
        activation: By its name in `MLP`.

    Raises:
        ValueError: There is no such activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        norm: bool = True,
        activation: str = "relu",
    ):
        super().__init__()
        self.activation = activation_called(activation)
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2 if padding is None else padding,
            groups=groups,
            bias=not norm,
        )
        self.norm = nn.BatchNorm(out_channels) if norm else None

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, in_channels] to [B, H', W', out_channels]."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.activation(x)


class ConvStack(nn.Module):
    """`ConvBlock`s in a row, each but the first of a larger stride.

    In PyTorch: `nn.Sequential` of those of `ConvBlock`.

    Args:
        channels: Channels of the input and of each block's output.
        kernel_size: Of each block.
        stride: Of each block but the first, whose stride is 1.
        norm: Whether the blocks have a BatchNorm.
        activation: By its name in `MLP`.

    Raises:
        ValueError: There are fewer than two channel counts, or no such activation.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernel_size: int = 3,
        stride: int = 2,
        norm: bool = True,
        activation: str = "relu",
    ):
        super().__init__()
        if len(channels) < 2:
            raise ValueError(
                f"channels are those of input and output at least, not {channels}"
            )
        pairs = itertools.pairwise(channels)
        self.blocks = [
            ConvBlock(
                inner,
                outer,
                kernel_size,
                stride if i else 1,
                norm=norm,
                activation=activation,
            )
            for i, (inner, outer) in enumerate(pairs)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        """[B, H, W, channels[0]] to [B, H', W', channels[-1]]."""
        for block in self.blocks:
            x = block(x)
        return x
