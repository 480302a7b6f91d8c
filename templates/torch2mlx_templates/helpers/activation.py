"""Gated activations, compiled to one kernel each."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as nn


@partial(mx.compile, shapeless=True)
def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`x` times the SiLU of its gate."""
    return nn.silu(gate) * x
