"""Linear layers."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer

aten = torch.ops.aten


@layer(aten.linear.default)
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """`nn.Linear`; the weight is (out, in) in both."""
    if weight.ndim != 2:
        raise Decline("its weight is no matrix")
    if bias is None:
        fc = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        if bias.ndim != 1 or bias.shape[0] != weight.shape[0]:
            raise Decline("its bias is not one number per output")
        fc = nn.Linear(weight.shape[1], weight.shape[0])
        fc.bias = bias
    fc.weight = weight
    return fc(x)


@layer(aten.addmm.default)
def addmm(x: Any, mat1: Any, mat2: Any) -> Any:
    """`nn.Linear` where the matrix (in, out) and the vector added are weights, as in GPT-2."""
    return linear(mat1, mat2.T, x)


@layer(aten.bilinear.default)
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """`nn.Bilinear`; MLX's weight is (out, in2, in1)."""
    out, first, second = weight.shape
    arguments = {"bias": False} if bias is None else {}
    product = nn.Bilinear(first, second, out, **arguments)
    product.weight = weight.transpose(0, 2, 1)
    if bias is not None:
        product.bias = bias
    return product(input1, input2)
