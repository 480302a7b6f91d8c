"""Pooling that is no `mlx.nn` layer; helpers pool over [N, *S, C]."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.lower.spatial import per_axis

aten = torch.ops.aten


MAX_POOLS = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
MAX_POOLS_WITH_INDICES = (
    aten.max_pool1d_with_indices.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)
AVG_POOLS = (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)


def max_pool_with_indices(axes: int) -> Any:
    """The lowering that gives the maxima and their places in the flattened image."""

    def lowering(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        arguments = (*window(axes, kernel_size, stride, padding, dilation), ceil_mode)
        y = images_last(x, axes)
        return [
            images_first(function(y, *arguments), x, axes)
            for function in (helpers.max_pool, helpers.max_pool_indices)
        ]

    return lowering


def max_pool(axes: int) -> Any:
    """The lowering of max pooling with dilation or `ceil_mode`."""
    with_indices = max_pool_with_indices(axes)

    def lowering(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        return with_indices(x, kernel_size, stride, padding, dilation, ceil_mode)[0]

    return lowering


def avg_pool(axes: int) -> Any:
    """The lowering of average pooling with `ceil_mode` or uncounted padding."""

    def lowering(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Any:
        arguments = window(axes, kernel_size, stride, padding)
        y = helpers.avg_pool(
            images_last(x, axes), *arguments, ceil_mode, count_include_pad
        )
        return images_first(y, x, axes)

    return lowering


def avg_pool_with_divisor(axes: int) -> Any:
    """`avg_pool`, whose overloads over two and three axes take a divisor."""
    counted = avg_pool(axes)

    def lowering(
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        if divisor_override is None:
            return counted(
                x, kernel_size, stride, padding, ceil_mode, count_include_pad
            )
        arguments = window(axes, kernel_size, stride, padding)
        y = helpers.sum_pool(images_last(x, axes), *arguments, ceil_mode)
        return images_first(y / divisor_override, x, axes)

    return lowering


for _axes in (1, 2, 3):
    lowers(MAX_POOLS[_axes - 1])(max_pool(_axes))
    lowers(MAX_POOLS_WITH_INDICES[_axes - 1])(max_pool_with_indices(_axes))
    lowers(AVG_POOLS[_axes - 1])(
        avg_pool(_axes) if _axes == 1 else avg_pool_with_divisor(_axes)
    )


@lowers(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
)
def adaptive_avg_pool(x: Any, output_size: Any) -> Any:
    """The mean over each of `output_size` bins; one bin is the mean over the whole axis."""
    axes = len(output_size)
    sizes = x.shape[-axes:]
    if all(out == 1 for out in output_size):
        return mx.mean(x, axis=tuple(range(x.ndim - axes, x.ndim)), keepdims=True)
    if all(isinstance(n, int) for n in sizes) and sizes == tuple(output_size):
        return x
    y = helpers.adaptive_avg_pool(images_last(x, axes), tuple(output_size))
    return images_first(y, x, axes)


@lowers(
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
)
def adaptive_max_pool(x: Any, output_size: Any) -> Any:
    """The maximum of each of `output_size` bins, and its place in the flattened image."""
    axes = len(output_size)
    y = images_last(x, axes)
    if all(out == 1 for out in output_size):
        values = mx.max(x, axis=tuple(range(x.ndim - axes, x.ndim)), keepdims=True)
    else:
        values = images_first(helpers.adaptive_max_pool(y, tuple(output_size)), x, axes)
    places = helpers.adaptive_max_pool_indices(y, tuple(output_size))
    return [values, images_first(places, x, axes)]


@lowers(aten.max_unpool2d.default)
def max_unpool2d(x: Any, indices: Any, output_size: Any) -> Any:
    """Zeros of `output_size` with each value at its place in the flattened image."""
    return _unpooled(x, indices, tuple(output_size))


@lowers(aten.max_unpool3d.default)
def max_unpool3d(
    x: Any, indices: Any, output_size: Any, stride: Any, padding: Any
) -> Any:
    """Zeros of `output_size` with each value at its place in the flattened volume."""
    return _unpooled(x, indices, tuple(output_size))


def _unpooled(x: Any, indices: Any, sizes: tuple[int, ...]) -> Any:
    axes = len(sizes)
    total = 1
    for size in sizes:
        total = total * size
    lead = x.shape[:-axes]
    y = mx.put_along_axis(
        mx.zeros((*lead, total), dtype=x.dtype),
        indices.flatten(-axes, -1),
        x.flatten(-axes, -1),
        -1,
    )
    return mx.unflatten(y, -1, sizes)


def window(
    axes: int, kernel_size: Any, stride: Any, padding: Any, *dilation: Any
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride (the kernel's where it is empty), padding and dilation per axis."""
    kernel = per_axis(kernel_size, axes)
    return (
        kernel,
        per_axis(stride, axes) or kernel,
        *(per_axis(value, axes) for value in (padding, *dilation)),
    )


def images_last(x: Any, axes: int) -> Any:
    """[N, C, *S] or [C, *S] -> [N, *S, C]."""
    return channels_last(x if x.ndim == axes + 2 else x[None])


def images_first(y: Any, x: Any, axes: int) -> Any:
    """[N, *S, C] -> [N, C, *S], or [C, *S] where `x` is."""
    return channels_first(y) if x.ndim == axes + 2 else channels_first(y)[0]
