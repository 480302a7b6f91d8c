"""Run a lowered graph on MLX arrays, without emitting any code."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch
import torch.fx

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.driver import Lowered


class MLXInterpreter(torch.fx.Interpreter):
    """`torch.fx.Interpreter` whose attributes and layers are MLX's.

    Args:
        lowered: The graph.
        arrays: State dict key -> MLX array, as PyTorch lays it out.
    """

    def __init__(self, lowered: Lowered, arrays: dict[str, mlx.core.array]):
        super().__init__(torch.nn.Module(), graph=lowered.graph)
        self.arrays = arrays

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op == "get_attr":
            return array_of(n.meta["weight"], self.arrays)
        if n.op == "call_module":
            spec = n.meta["layer"]
            layer = spec.cls(*spec.args, **spec.kwargs)
            for name, weight in spec.weights.items():
                setattr(layer, name, array_of(weight, self.arrays))
            layer.eval()
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return layer(*args, **kwargs)
        return super().run_node(n)


def array_of(weight: Weight, arrays: dict[str, mlx.core.array]) -> mlx.core.array:
    """The array that `weight` says, from the arrays of the state dict."""
    parts = [arrays[source] for source in weight.sources]
    array = parts[0]
    if weight.merge == "sum":
        array = sum(parts[1:], parts[0])
    elif weight.merge == "concat":
        array = mlx.core.concatenate(parts)
    for kind, value in weight.steps:
        array = array.transpose(value) if kind == "transpose" else array.reshape(value)
    return array
