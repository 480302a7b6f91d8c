"""Interpolation, sampling by a grid, and windows as columns; helpers work on [N, *S, C]."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import helpers
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.pooling import images_last

aten = torch.ops.aten

NEAREST = (
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
)
NEAREST_EXACT = (
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
)
LINEAR = (
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
)
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


@lowers(*NEAREST)
def nearest(x: Any, output_size: Any, scale_factors: Any) -> Any:
    """The neighbour below each place."""
    return _resampled(helpers.interpolate_nearest, x, output_size, scale_factors)


@lowers(*NEAREST_EXACT)
def nearest_exact(x: Any, output_size: Any, scale_factors: Any) -> Any:
    """The nearest neighbour of each pixel's centre."""
    return _resampled(
        helpers.interpolate_nearest, x, output_size, scale_factors, exact=True
    )


@lowers(*LINEAR)
def linear(x: Any, output_size: Any, align_corners: bool, scale_factors: Any) -> Any:
    """Linear interpolation along each axis."""
    options = {"align_corners": True} if align_corners else {}
    return _resampled(
        helpers.interpolate_linear, x, output_size, scale_factors, **options
    )


@lowers(aten.upsample_bicubic2d.vec)
def bicubic(x: Any, output_size: Any, align_corners: bool, scale_factors: Any) -> Any:
    """Cubic interpolation along each axis."""
    options = {"align_corners": True} if align_corners else {}
    return _resampled(
        helpers.interpolate_cubic, x, output_size, scale_factors, **options
    )


@lowers(aten._upsample_bilinear2d_aa.vec)
def bilinear_antialiased(
    x: Any, output_size: Any, align_corners: bool, scale_factors: Any
) -> Any:
    """Linear interpolation with a filter as wide as a new pixel."""
    options = {"align_corners": True} if align_corners else {}
    return _resampled(
        helpers.interpolate_antialiased, x, output_size, scale_factors, **options
    )


@lowers(aten._upsample_bicubic2d_aa.vec)
def bicubic_antialiased(
    x: Any, output_size: Any, align_corners: bool, scale_factors: Any
) -> Any:
    """Cubic interpolation with a filter as wide as a new pixel."""
    options = {"align_corners": True} if align_corners else {}
    return _resampled(
        helpers.interpolate_antialiased,
        x,
        output_size,
        scale_factors,
        cubic=True,
        **options,
    )


@lowers(aten.upsample_nearest2d.default)
def nearest_sized(
    x: Any,
    output_size: Any,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """`nearest` after decomposition."""
    return nearest(x, output_size, _scales(scales_h, scales_w))


@lowers(aten.upsample_bilinear2d.default)
def bilinear_sized(
    x: Any,
    output_size: Any,
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """`linear` after decomposition."""
    return linear(x, output_size, align_corners, _scales(scales_h, scales_w))


@lowers(aten.upsample_bicubic2d.default)
def bicubic_sized(
    x: Any,
    output_size: Any,
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """`bicubic` after decomposition."""
    return bicubic(x, output_size, align_corners, _scales(scales_h, scales_w))


@lowers(aten._upsample_bilinear2d_aa.default)
def bilinear_antialiased_sized(
    x: Any,
    output_size: Any,
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """`bilinear_antialiased` after decomposition."""
    scales = _scales(scales_h, scales_w)
    return bilinear_antialiased(x, output_size, align_corners, scales)


@lowers(aten.grid_sampler.default, aten.grid_sampler_3d.default)
def grid_sampler(
    x: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Any:
    """The values of an image at the places that a grid names."""
    y = helpers.grid_sample(
        channels_last(x),
        grid,
        MODES[interpolation_mode],
        PADDINGS[padding_mode],
        align_corners,
    )
    return channels_first(y)


@lowers(aten.grid_sampler_2d.default)
def grid_sampler_2d(
    x: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Any:
    """`grid_sampler` over two axes."""
    return grid_sampler(x, grid, interpolation_mode, padding_mode, align_corners)


@lowers(aten.affine_grid_generator.default)
def affine_grid(theta: Any, size: Any, align_corners: bool) -> Any:
    """The grid of an affine map."""
    return helpers.affine_grid(theta, tuple(size), align_corners)


@lowers(aten.im2col.default)
def im2col(x: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """The windows of an image as columns."""
    arguments = (tuple(value) for value in (kernel_size, dilation, padding, stride))
    y = helpers.unfold(images_last(x, 2), *arguments)
    return y if x.ndim == 4 else y[0]


@lowers(aten.col2im.default)
def col2im(
    x: Any, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Any:
    """Columns added up where `im2col` took them from."""
    arguments = (
        tuple(value) for value in (output_size, kernel_size, dilation, padding, stride)
    )
    y = channels_first(helpers.fold(x if x.ndim == 3 else x[None], *arguments))
    return y if x.ndim == 3 else y[0]


def _resampled(
    function: Any, x: Any, output_size: Any, scale_factors: Any, **options: Any
) -> Any:
    """A helper on [N, *S, C], with the size or else the scale that the call gives."""
    if scale_factors is not None:
        options = {"scale": tuple(scale_factors), **options}
    if output_size is not None:
        options = {"size": tuple(output_size), **options}
    return channels_first(function(channels_last(x), **options))


def _scales(*scales: float | None) -> Any:
    return None if any(scale is None for scale in scales) else tuple(scales)
