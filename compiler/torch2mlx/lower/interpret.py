"""Run a lowered graph on MLX arrays, without emitting any code."""

from __future__ import annotations

from typing import Any

import mlx.core
import numpy as np
import torch
import torch.fx

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.driver import Lowered
from torch2mlx.weights.expression import evaluate


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
    elif weight.merge == "gru_bias":
        gates = parts[0].shape[0] // 3 * 2
        array = parts[0].at[:gates].add(parts[1][:gates])
    elif weight.expression:
        array = _computed(weight, parts)
    for step in weight.steps:
        array = _step(array, *step)
    return array


def _computed(weight: Weight, parts: list[mlx.core.array]) -> mlx.core.array:
    floats = [mlx.core.issubdtype(part.dtype, mlx.core.floating) for part in parts]
    known = [
        np.array(part.astype(mlx.core.float32) if is_float else part)
        for part, is_float in zip(parts, floats, strict=True)
    ]
    dtypes = ["F32" if is_float else "I64" for is_float in floats]
    made = evaluate(weight.expression, known, dtypes).astype(np.float32)
    return mlx.core.array(made).astype(parts[floats.index(True)].dtype)


def _step(array: mlx.core.array, kind: str, *values: Any) -> mlx.core.array:
    if kind == "slice":
        axis, start, stop = values
        return array[(slice(None),) * axis + (slice(start, stop),)]
    return array.transpose(*values) if kind == "transpose" else array.reshape(*values)
