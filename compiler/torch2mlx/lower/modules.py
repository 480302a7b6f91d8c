"""Lowering of modules whose class is mapped by `register_layer`."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from torch2mlx.capture.opaque import call_of
from torch2mlx.lower.facade import Decline, Refuse
from torch2mlx.lower.registry import FAILURES, MODULES


class ModuleView:
    """A PyTorch module as its lowering sees it: its arrays are traced values.

    Args:
        module: The module.
        weights: Its parameters and buffers by name, as traced values.
    """

    def __init__(self, module: torch.nn.Module, weights: dict[str, Any]):
        self._module, self._weights = module, weights

    def __getattr__(self, name: str) -> Any:
        if name in self._weights:
            return self._weights[name]
        value = getattr(self._module, name)
        if not isinstance(value, torch.nn.Module):
            return value
        prefix = f"{name}."
        inner = {
            key.removeprefix(prefix): weight
            for key, weight in self._weights.items()
            if key.startswith(prefix)
        }
        return ModuleView(value, inner)


def lower_module(arrays: list[Any], weights: list[Any], key: str) -> list[Any]:
    """The results of a mapped module's call.

    Args:
        arrays: The arrays among its arguments.
        weights: Its parameters and buffers.
        key: Which call it is.

    Raises:
        Refuse: The lowering declines, fails or returns something else than the module does: there is no
            other way to lower the call.
    """
    call = call_of(key)
    view = ModuleView(call.module, dict(zip(call.names, weights, strict=True)))
    args, kwargs = call.arguments(arrays)
    layer = f"the layer that {type(call.module).__name__} is mapped to"
    try:
        results = tree_leaves(MODULES[type(call.module)](view, *args, **kwargs))
    except Decline as error:
        raise Refuse(f"{layer} declines: {error}") from error
    except FAILURES as error:
        reason = str(error).partition("\n")[0]
        raise Refuse(f"{layer} fails: {reason}") from error
    assert call.out_spec is not None
    if len(results) != call.out_spec.num_leaves:
        count = call.out_spec.num_leaves
        raise Refuse(f"{layer} gives {len(results)} arrays where PyTorch gives {count}")
    return results
