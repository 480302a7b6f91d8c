"""Noise on what random initialisation leaves constant."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Vary parameters and statistics that are constant: zeros and ones would hide faults."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and (tensor == tensor.flatten()[0]).all():
            tensor += 0.1 * torch.rand_like(tensor)
