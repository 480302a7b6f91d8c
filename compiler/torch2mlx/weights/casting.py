"""Floating-point arrays in another precision, rounded to nearest, ties to even, as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.weights.safetensors import DTYPES

Array = NDArray[Any]

FLOATS = ("F64", "F32", "F16", "BF16")
# Elements that are converted at a time
BLOCK = 1 << 18


def cast(array: Array, source: str, target: str) -> Array:
    """`array` of dtype `source` as dtype `target`, both of `FLOATS`.

    Raises:
        OverflowError: A finite value is too large for `target`; the message says how large.
    """
    if source == target:
        return array
    result = np.empty(array.shape, DTYPES[target])
    if array.size <= BLOCK or not array.ndim:
        result[...] = _cast(array, source, target)
        return result
    rows = max(1, BLOCK * len(array) // array.size)
    for i in range(0, len(array), rows):
        result[i : i + rows] = _cast(array[i : i + rows], source, target)
    return result


def _cast(array: Array, source: str, target: str) -> Array:
    values = widen(array) if source == "BF16" else array
    if target == "BF16":
        with np.errstate(over="ignore"):
            result = narrow(values.astype(np.float32, copy=False))
        infinite = (result & 0x7FFF) == 0x7F80
    else:
        with np.errstate(over="ignore"):
            result = values.astype(DTYPES[target])
        infinite = np.isinf(result)
    if infinite.any() and np.isfinite(values[infinite]).any():
        largest = np.abs(values[np.isfinite(values)]).max()
        raise OverflowError(f"{largest:.4g} is too large for it")
    return result


def widen(raw: Array) -> Array:
    """bfloat16, as raw bits, as float32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def narrow(array: Array) -> Array:
    """float32 as bfloat16, as raw bits; a NaN stays one."""
    bits = array.view(np.uint32) if array.flags.c_contiguous else _bits(array)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, (bits >> 16) | 0x40, rounded).astype(DTYPES["BF16"])


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(array.shape).view(np.uint32)
