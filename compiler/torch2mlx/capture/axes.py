"""Axes counted from the front, where torch.export records a wrong shape for those counted from the end.

x.unique(dim=-1)     ->     x.unique(dim=x.ndim - 1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NAMES = {"unique", "unique_consecutive"}


class AxesFromTheFront(TorchFunctionMode):
    """While this is active, `unique` gets its axis as a number that is not negative."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        axis, name = kwargs.get("dim"), getattr(func, "__name__", "")
        if (
            name in NAMES
            and isinstance(axis, int)
            and isinstance(args[0], torch.Tensor)
        ):
            kwargs["dim"] = axis % max(args[0].ndim, 1)
        return func(*args, **kwargs)
