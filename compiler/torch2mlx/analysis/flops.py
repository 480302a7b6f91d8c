"""Floating-point operations of captured calls, as PyTorch's own counter counts them.

They are those of matrix products, convolutions and attention, two for a multiplication and an addition;
everything else counts as none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from torch2mlx.capture import Captured
from torch2mlx.capture.opaque import MODULE, call_of
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.lower.facade import map_values


class Counter:
    """Counts the operations of one graph's calls, equal calls once.

    Args:
        captured: Knows the sizes for the example inputs.
    """

    def __init__(self, captured: Captured):
        self.captured = captured
        self.known: dict[Any, int] = {}

    def count(self, node: torch.fx.Node) -> int:
        """The operations of one call for the example inputs."""
        target = node.target
        if not isinstance(target, OpOverload) or torch.Tag.pointwise in target.tags:
            return 0
        args, kwargs = map_values(self._value, (tuple(node.args), dict(node.kwargs)))
        key = str((target, map_values(_signature, (args, kwargs))))
        if key not in self.known:
            self.known[key] = _counted(target, args, kwargs)
        return self.known[key]

    def _value(self, argument: Any) -> Any:
        if not isinstance(argument, torch.fx.Node):
            return argument
        return map_values(self._meta, argument.meta.get("val"))

    def _meta(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            shape = [self.captured.size(size) for size in value.shape]
            return torch.empty(shape, dtype=value.dtype, device="meta")
        return self.captured.number(value) if hasattr(value, "node") else value


def _signature(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor)
    return (tuple(value.shape), value.dtype) if is_tensor else value


def _counted(target: OpOverload, args: Any, kwargs: Any) -> int:
    if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
        return 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            _run(target, args, kwargs)
        except (RuntimeError, NotImplementedError):
            # Only what depends on values does not run on the meta device: it is no product
            return 0
    return counter.get_total_flops()


def _run(target: OpOverload, args: Any, kwargs: Any) -> None:
    if target is MODULE:
        arrays, weights, key = args
        call_of(key).run(arrays, weights)
    elif target is ATTENTION:
        query, key, value, mask, scale = args
        grouped = query.shape[1] != key.shape[1]
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, mask, scale=scale, enable_gqa=grouped
        )
    else:
        # The device of what a call makes is that of its arguments
        target(*args, **{k: v for k, v in kwargs.items() if k != "device"})
