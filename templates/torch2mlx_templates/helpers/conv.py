"""Convolutions with groups over three axes, which MLX lacks. Arrays are [N, *S, C]."""

from __future__ import annotations

import mlx.core as mx


def grouped_conv3d(
    x: mx.array,
    weight: mx.array,
    groups: int,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
) -> mx.array:
    """Convolve [N, D, H, W, in] with [out, *kernel, in / groups], group by group."""
    parts = zip(mx.split(x, groups, axis=-1), mx.split(weight, groups))
    return mx.concatenate(
        [mx.conv3d(part, w, stride, padding, dilation) for part, w in parts], axis=-1
    )


def grouped_conv_transpose3d(
    x: mx.array,
    weight: mx.array,
    groups: int,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    output_padding: int | tuple[int, int, int] = 0,
) -> mx.array:
    """Transposed convolution of [N, D, H, W, in] with [out, *kernel, in / groups]."""
    parts = zip(mx.split(x, groups, axis=-1), mx.split(weight, groups))
    return mx.concatenate(
        [
            mx.conv_transpose3d(part, w, stride, padding, dilation, output_padding)
            for part, w in parts
        ],
        axis=-1,
    )
