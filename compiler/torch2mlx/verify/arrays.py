"""NumPy arrays as MLX arrays."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np


def from_numpy(array: np.ndarray[Any, Any]) -> mx.array:
    """A NumPy array as an MLX array of the same shape and dtype.

    One without elements is made by MLX itself: its CPU backend now and then never finishes
    a reduction of an empty array whose memory came from NumPy.
    """
    made = mx.array(array)
    return made if array.size else mx.zeros(array.shape, made.dtype)
