"""Models some of whose weights have no values: they are on the meta device, the others in main memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


def device_of(model: nn.Module) -> torch.device:
    """Where the inputs of `model` must be: on the meta device if none of its weights has values."""
    # Single numbers go with tensors of any device
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.ndim]
    is_meta = bool(tensors) and all(tensor.is_meta for tensor in tensors)
    return torch.device("meta" if is_meta else "cpu")


@contextmanager
def standing_in(model: nn.Module) -> Generator[Tensors, None, None]:
    """Zeros stand in for the weights that have no values, unless none has; no memory is used for them.

    Yields:
        The weights without values, by all their names.
    """
    if device_of(model).type == "meta":
        yield {}
        return
    found: Tensors = {}
    places: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        for place in (module._parameters, module._buffers):
            for name, tensor in place.items():
                if tensor is not None and tensor.is_meta:
                    found[f"{path}.{name}" if path else name] = tensor
                    places.append((place, name, tensor))
    # Names that share a tensor go on sharing it
    zeros = {id(tensor): _zeros(tensor) for _, _, tensor in places}
    for place, name, tensor in places:
        place[name] = zeros[id(tensor)]
    try:
        yield found
    finally:
        for place, name, tensor in places:
            place[name] = tensor


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    # Unlike torch.zeros, numpy takes fresh pages of the system, which are none before they are written
    numbers = np.zeros(tensor.nbytes, np.uint8)
    zeros = torch.from_numpy(numbers).view(tensor.dtype).reshape(tensor.shape)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(zeros, tensor.requires_grad)
    return zeros
