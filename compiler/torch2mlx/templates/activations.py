"""The activations that the blocks know by name."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

Activation = Callable[[mx.array], mx.array]

ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    # PyTorch's GELU(approximate="tanh")
    "gelu_tanh": nn.gelu_approx,
    "silu": nn.silu,
    "tanh": mx.tanh,
    "sigmoid": mx.sigmoid,
    "identity": lambda x: x,
}


def activation(name: str) -> Activation:
    """The activation function called `name`.

    Raises:
        ValueError: There is none.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"there is no activation {name!r}; known are {known}")
    return ACTIVATIONS[name]
