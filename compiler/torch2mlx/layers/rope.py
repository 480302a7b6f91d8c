"""Rotary position embedding."""

from __future__ import annotations

from typing import Any

from torch2mlx.ir.operators import ROPE
from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer


@layer(ROPE)
def rope(
    x: Any,
    dims: int,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: int,
    freqs: Any,
) -> Any:
    """`nn.RoPE`, whose frequencies are powers of its base."""
    if base is None or offset:
        raise Decline("nn.RoPE has a base, and begins at position 0")
    options = {"base": (base, 10000), "scale": (scale, 1.0)}
    given: dict[str, Any] = {"traditional": True} if traditional else {}
    given |= {name: v for name, (v, default) in options.items() if v != default}
    return nn.RoPE(dims, **given)(x)
