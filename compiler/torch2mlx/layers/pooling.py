"""Pooling layers; they own no weights."""

from __future__ import annotations

from typing import Any

from torch2mlx.lower.facade import Decline, helpers, nn
from torch2mlx.lower.registry import layer
from torch2mlx.lower.spatial import as_written
from torch2mlx.ops.pooling import (
    AVG_POOLS,
    MAX_POOLS,
    MAX_POOLS_WITH_INDICES,
    images_first,
    images_last,
    window,
)

MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVG = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def max_pool(axes: int) -> Any:
    """The layer entry of `nn.MaxPool1d`, `nn.MaxPool2d` or `nn.MaxPool3d`."""

    def entry(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        kernel, strides, pads, dilations = window(
            axes, kernel_size, stride, padding, dilation
        )
        if any(d != 1 for d in dilations):
            raise Decline("nn.MaxPool has no dilation")
        if ceil_mode and not _fits(x, kernel, strides, pads):
            raise Decline("nn.MaxPool has no ceil_mode")
        return _pooled(MAX[axes - 1], x, kernel, strides, pads)

    return entry


def max_pool_with_indices(axes: int) -> Any:
    """`max_pool`, with the place of each maximum in the flattened image where it is used."""
    pool = max_pool(axes)

    def entry(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        values = pool(x, kernel_size, stride, padding, dilation, ceil_mode)
        arguments = window(axes, kernel_size, stride, padding, dilation)
        places = helpers.max_pool_indices(images_last(x, axes), *arguments, ceil_mode)
        return [values, images_first(places, x, axes)]

    return entry


def avg_pool(axes: int) -> Any:
    """The layer entry of `nn.AvgPool1d`, `nn.AvgPool2d` or `nn.AvgPool3d`; no divisor is mapped."""

    def entry(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Any:
        kernel, strides, pads = window(axes, kernel_size, stride, padding)
        if ceil_mode and not _fits(x, kernel, strides, pads):
            raise Decline("nn.AvgPool has no ceil_mode")
        if any(pads) and not count_include_pad:
            raise Decline("nn.AvgPool counts padding")
        return _pooled(AVG[axes - 1], x, kernel, strides, pads)

    return entry


for _axes in (1, 2, 3):
    layer(MAX_POOLS[_axes - 1])(max_pool(_axes))
    layer(MAX_POOLS_WITH_INDICES[_axes - 1])(max_pool_with_indices(_axes))
    layer(AVG_POOLS[_axes - 1])(avg_pool(_axes))


def _pooled(
    module: Any,
    x: Any,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Any:
    axes = len(kernel)
    arguments = {}
    if stride != kernel:
        arguments["stride"] = as_written(stride)
    if any(padding):
        arguments["padding"] = as_written(padding)
    pool = module(as_written(kernel), **arguments)
    return images_first(pool(images_last(x, axes)), x, axes)


def _fits(
    x: Any, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> bool:
    """Whether the windows cover fixed sizes exactly, so that `ceil_mode` changes nothing."""
    sizes = x.shape[-len(kernel) :]
    return all(
        isinstance(n, int) and (n + 2 * p - k) % s == 0
        for n, k, s, p in zip(sizes, kernel, stride, padding, strict=True)
    )
