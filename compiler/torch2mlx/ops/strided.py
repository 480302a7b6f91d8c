"""Views by sizes and strides, of arrays that are stored row by row (see `passes.strides`)."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.as_strided.default, aten.as_strided_copy.default)
def as_strided(x: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """`mx.as_strided`."""
    arguments = (tuple(size), tuple(stride), storage_offset or 0)
    return mx.as_strided(x, *arguments)


@lowers(aten.as_strided_scatter.default)
def as_strided_scatter(
    x: Any, src: Any, size: Any, stride: Any, storage_offset: Any = None
) -> Any:
    """`x` with `src` written to a strided view of it."""
    count: Any = 1
    for length in x.shape:
        count = count * length
    places = as_strided(mx.arange(count), size, stride, storage_offset)
    return helpers.assign(x.reshape(-1), places, src).reshape(*x.shape)
