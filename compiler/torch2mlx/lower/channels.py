"""PyTorch is channels-first, MLX's convolutions and pools channels-last: the two transposes between them.

Lowerings write these around every such op; the layout pass then removes the ones that cancel.
"""

from __future__ import annotations

from typing import Any

from torch2mlx.lower.facade import mx


def channels_last(x: Any) -> Any:
    """[N, C, *S] -> [N, *S, C]."""
    return mx.transpose(x, (0, *range(2, x.ndim), 1))


def channels_first(x: Any) -> Any:
    """[N, *S, C] -> [N, C, *S]."""
    return mx.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))
