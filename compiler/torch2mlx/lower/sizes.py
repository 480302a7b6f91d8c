"""Arithmetic on sizes: what torch.export leaves in the graph around symbolic dims."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from torch2mlx.ir import intrinsics
from torch2mlx.lower.facade import Traced


def sym_size(x: Any, dim: int) -> Any:
    """One size of an array, traced as `x.shape[dim]`."""
    if isinstance(x, Traced):
        return x.shape[dim]
    return intrinsics.dim(x, dim)


def _recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        for arg in args:
            if isinstance(arg, Traced):
                return arg.tracer.create_proxy("call_function", function, args, {})
        return function(*args)

    return call


SIZE_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.sym_size.int: sym_size,
    **{
        function: _recorded(function)
        for function in (
            operator.add,
            operator.sub,
            operator.mul,
            operator.floordiv,
            operator.truediv,
            operator.mod,
            operator.neg,
            operator.pow,
            operator.eq,
            operator.ge,
            operator.gt,
            operator.le,
            operator.lt,
            operator.ne,
            math.ceil,
            math.floor,
            math.trunc,
            builtins.round,
        )
    },
    torch.sym_max: _recorded(builtins.max),
    torch.sym_min: _recorded(builtins.min),
    torch.sym_float: _recorded(builtins.float),
    torch.sym_int: _recorded(builtins.int),
    torch.ops.aten.sym_numel.default: lambda x: _product(x.shape),
}


def _product(sizes: Any) -> Any:
    total = 1
    for size in sizes:
        total = total * size
    return total
