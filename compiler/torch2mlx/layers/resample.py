"""Upsampling layers; they own no weights."""

from __future__ import annotations

from typing import Any

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer
from torch2mlx.lower.spatial import as_written
from torch2mlx.ops.resample import LINEAR, NEAREST


@layer(*NEAREST)
def nearest(x: Any, output_size: Any, scale_factors: Any) -> Any:
    """`nn.Upsample`, which agrees with PyTorch at integral scales."""
    upsample = nn.Upsample(_scale(output_size, scale_factors))
    return channels_first(upsample(channels_last(x)))


@layer(*LINEAR)
def linear(x: Any, output_size: Any, align_corners: bool, scale_factors: Any) -> Any:
    """`nn.Upsample(mode="linear")`, which agrees with PyTorch at integral scales."""
    options = {"align_corners": True} if align_corners else {}
    scale = _scale(output_size, scale_factors)
    upsample = nn.Upsample(scale, mode="linear", **options)
    return channels_first(upsample(channels_last(x)))


def _scale(output_size: Any, scale_factors: Any) -> Any:
    if output_size is not None or scale_factors is None:
        raise Decline("nn.Upsample has no output size")
    if any(scale != int(scale) for scale in scale_factors):
        raise Decline("nn.Upsample differs at fractional scales")
    return as_written(tuple(int(scale) for scale in scale_factors))
