"""Arrays of one number that meet an array become Python numbers.

c = full([], 8.0); y = div.Tensor(x, c)     ->     y = div.Tensor(x, 8.0)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import call, replace, tensor_of

aten = torch.ops.aten

# Operators whose second operand may be a Python number -> the overload that takes it.
SCALAR_FORMS = {
    **{
        getattr(aten, name).Tensor: getattr(aten, name).Tensor
        for name in ("add", "sub", "mul", "div")
    },
    **{
        getattr(aten, name).Tensor: getattr(aten, name).Scalar
        for name in ("eq", "ne", "lt", "le", "gt", "ge", "fill")
    },
    aten.pow.Tensor_Tensor: aten.pow.Tensor_Scalar,
}


def scalars(captured: Captured) -> bool:
    """Replace constant arrays without axes by Python numbers, where the result keeps its dtype."""
    changed = False
    for node in list(captured.graph.nodes):
        new = None
        if node.target in SCALAR_FORMS:
            new = _second_operand(node)
        elif (
            node.target is aten.masked_fill.Tensor
            and (number := _number(node.args[2])) is not None
        ):
            new = call(node, aten.masked_fill.Scalar, *node.args[:2], number)
        elif node.target is aten.where.self:
            new = _where(node)
        if new is not None:
            replace(node, new)
            changed = True
    return changed


def _number(node: Any) -> bool | int | float | None:
    value = tensor_of(node)
    if value is None or value.ndim:
        return None
    if node.target in (aten.zeros.default, aten.ones.default):
        number = torch.tensor(
            node.target is aten.ones.default, dtype=value.dtype
        ).item()
    else:
        number = node.args[1] if node.target is aten.full.default else None
    return number if isinstance(number, bool | int | float) else None


def _second_operand(node: torch.fx.Node) -> torch.fx.Node | None:
    x, other, *rest = node.args
    number = _number(other)
    if number is None or isinstance(number, bool) or tensor_of(x) is None:
        return None
    return _same_dtype(node, SCALAR_FORMS[node.target], x, number, *rest, **node.kwargs)


def _where(node: torch.fx.Node) -> torch.fx.Node | None:
    condition, x, other = node.args
    first, second = _number(x), _number(other)
    if first is not None and second is not None:
        return _same_dtype(node, aten.where.Scalar, condition, first, second)
    if second is not None:
        return _same_dtype(node, aten.where.ScalarOther, condition, x, second)
    if first is not None:
        return _same_dtype(node, aten.where.ScalarSelf, condition, first, other)
    return None


def _same_dtype(
    node: torch.fx.Node, target: Any, *args: Any, **kwargs: Any
) -> torch.fx.Node | None:
    new = call(node, target, *args, **kwargs)
    if new.meta["val"].dtype == node.meta["val"].dtype:
        return new
    node.graph.erase_node(new)
    return None
