"""Embedding layers."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer

aten = torch.ops.aten


@layer(aten.embedding.default)
def embedding(
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """`nn.Embedding`; the other arguments only concern gradients."""
    if weight.ndim != 2:
        raise Decline("its weight is no table of vectors")
    embed = nn.Embedding(weight.shape[0], weight.shape[1])
    embed.weight = weight
    return embed(indices)
