"""A layer of weights and the BatchNorm that follows it, as one layer: y = x * scale + shift per channel.

    scale  = gamma / sqrt(variance + eps)
    weight = weight * scale                        of ([weight], [gamma], variance)
    bias   = beta + (bias - mean) * scale          of ([bias], [gamma, beta], mean, variance)

What is in brackets may be missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.weights.casting import narrow, widen
from torch2mlx.weights.safetensors import DTYPES

Array = NDArray[Any]
Shape = tuple[int, ...]

SCALE, SHIFT = "batch_norm_scale", "batch_norm_shift"
FOLDS = (SCALE, SHIFT)


def folded_shape(merge: str, shapes: tuple[Shape, ...], axis: int) -> Shape | None:
    """The shape of what `fold` makes; None where the sources do not fit each other."""
    first, last = shapes[0], shapes[-1]
    vectors = shapes if merge == SHIFT else shapes[1:]
    if len(last) != 1 or any(shape != last for shape in vectors):
        return None
    if merge == SHIFT:
        return last if 2 <= len(shapes) <= 5 else None
    fits = axis < len(first) and first[axis] == last[0]
    return first if fits and 2 <= len(shapes) <= 3 else None


def fold(merge: str, arrays: list[Array], dtype: str, axis: int, eps: float) -> Array:
    """The weight (`SCALE`, its channels along `axis`) or the bias (`SHIFT`) of the one layer."""
    decode = widen if dtype == "BF16" else np.asarray
    sources = [decode(array).astype(np.float64) for array in arrays]
    scale = 1 / np.sqrt(sources[-1] + eps)
    if merge == SCALE:
        weight, *gamma = sources[:-1]
        scale = scale * gamma[0] if gamma else scale
        total = weight * scale.reshape(-1, *[1] * (weight.ndim - 1 - axis))
    else:
        *parts, mean = sources[:-1]
        bias = parts.pop(0) if len(parts) % 2 else np.zeros_like(mean)
        gamma, beta = parts or (1.0, 0.0)
        total = beta + (bias - mean) * (scale * gamma)
    if dtype == "BF16":
        return narrow(total.astype(np.float32))
    return total.astype(DTYPES[dtype])
