"""Factors that an array's half precision cannot hold: PyTorch multiplies in float32.

y = mul.Tensor(x, -1e9)     ->     y = to.dtype(mul.Tensor(to.dtype(x, float32), -1e9), float16)

MLX would make the factor an element of x's dtype first: here -inf, and 0 times that is not 0. In sums
PyTorch does that, too.
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import call, replace, tensor_of

aten = torch.ops.aten

PRODUCTS = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar}
HALVES = (torch.float16, torch.bfloat16)


def wide_numbers(captured: Captured) -> bool:
    """Multiply in float32 where a factor is a number that the other's dtype cannot hold."""
    changed = False
    for node in list(captured.graph.nodes):
        if node.target in PRODUCTS and _is_wide(node):
            args = [_widened(node, value) for value in node.args]
            wide = call(node, node.target, *args, **node.kwargs)
            result = tensor_of(node)
            assert result is not None
            replace(node, call(node, aten.to.dtype, wide, result.dtype))
            changed = True
    return changed


def _is_wide(node: torch.fx.Node) -> bool:
    result = tensor_of(node)
    if result is None or result.dtype not in HALVES:
        return False
    limits = torch.finfo(result.dtype)
    sizes = [abs(value) for value in node.args if isinstance(value, (int, float))]
    return any(
        limits.max < size < float("inf") or 0 < size < limits.smallest_normal
        for size in sizes
    )


def _widened(node: torch.fx.Node, value: object) -> object:
    is_half = (tensor := tensor_of(value)) is not None and tensor.dtype in HALVES
    return call(node, aten.to.dtype, value, torch.float32) if is_half else value
