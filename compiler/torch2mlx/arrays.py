"""NumPy arrays as MLX arrays."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np


def from_numpy(array: np.ndarray[Any, Any], *, bfloat16: bool = False) -> mx.array:
    """A NumPy array as an MLX array of the same shape and dtype.

    One without elements is made by MLX itself: its CPU backend now and then never finishes
    a reduction of an empty array whose memory came from NumPy.

    Args:
        array: The array.
        bfloat16: Its 16-bit elements are the raw bits of bfloat16, which NumPy does not have.
    """
    made = mx.array(np.asarray(array, order="C"))
    made = made if array.size else mx.zeros(array.shape, made.dtype)
    return made.view(mx.bfloat16) if bfloat16 else made
