"""Table lookups whose table is computed."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.embedding.default)
def embedding(
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """`weight[indices]`; the other arguments only concern gradients."""
    return weight[indices]
