"""`len(x)` of a tensor, which Python wants to be an int, and which would fix the size: it is `x.shape[0]`."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def lengths_as_sizes(model: nn.Module) -> Iterator[None]:
    """While this is open, `len` of a tensor is its first size in the files that `model`'s classes are from.

    Args:
        model: The module; those of its classes that are PyTorch's own are left alone.
    """
    files = {base.__module__ for m in model.modules() for base in type(m).__mro__}
    names = [
        name for name in files if name.partition(".")[0] not in ("torch", "builtins")
    ]
    spaces = [vars(sys.modules[name]) for name in names if name in sys.modules]
    changed = [space for space in spaces if "len" not in space]
    for space in changed:
        space["len"] = _len
    try:
        yield
    finally:
        for space in changed:
            del space["len"]


def _len(value: Any) -> Any:
    is_array = isinstance(value, torch.Tensor) and value.ndim > 0
    return value.shape[0] if is_array else builtins.len(value)
