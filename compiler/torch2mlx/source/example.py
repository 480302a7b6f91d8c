"""Example inputs for a module that comes without a source that knows them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from torch2mlx.capture.valueless import device_of
from torch2mlx.source import transformers_inputs
from torch2mlx.source.infer import infer
from torch2mlx.source.loaded import Example


def example_inputs(model: nn.Module) -> Example:
    """Inputs that fit `model`, on its device, and one line that says how they were found.

    Args:
        model: In evaluation mode.

    Raises:
        InputError: They cannot be inferred.
    """
    is_pretrained = hasattr(model, "main_input_name") and hasattr(model, "config")
    find = transformers_inputs.example if is_pretrained else infer
    args, kwargs, description = find(model)
    device = device_of(model)
    args, kwargs = tree_map_only(
        torch.Tensor, lambda tensor: tensor.to(device), (args, kwargs)
    )
    return args, kwargs, description
