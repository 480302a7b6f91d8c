"""Calls for which torch.export records a wrong shape, as equal calls for which it does not.

x.unique(dim=-1)                            ->     x.unique(dim=x.ndim - 1)
multi_margin_loss(row, reduction="none")    ->     multi_margin_loss(row, reduction="sum")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NAMES = {"unique", "unique_consecutive"}
# The axes that the target of a batch has
LOSSES = {"multi_margin_loss": 1, "multilabel_margin_loss": 2}


class EqualCalls(TorchFunctionMode):
    """While this is active, `unique` gets an axis that is not negative, and one row one loss."""

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
        if name in LOSSES and kwargs.get("reduction") == "none":
            single = args[1].ndim < LOSSES[name]
            kwargs["reduction"] = "sum" if single else "none"
        return func(*args, **kwargs)
