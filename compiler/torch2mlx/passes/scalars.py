"""Arrays of one number that meet an array of at least their shape become Python numbers.

c = full([], 8.0); y = div.Tensor(x, c)         ->     y = div.Tensor(x, 8.0)
c = full_like(x, 15); y = minimum(x, c)         ->     y = clamp_max(x, 15)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import (
    arguments,
    call,
    replace,
    same_shape,
    tensor_of,
)
from torch2mlx.passes.views import EXPANSIONS

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
    **dict.fromkeys([aten.minimum.default, aten.min.other], aten.clamp_max.default),
    **dict.fromkeys([aten.maximum.default, aten.max.other], aten.clamp_min.default),
}
WHERES = {
    aten.where.self,
    aten.where.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
}
FILLED = {
    **dict.fromkeys([aten.zeros.default, aten.zeros_like.default], 0),
    **dict.fromkeys([aten.ones.default, aten.ones_like.default], 1),
}


def scalars(captured: Captured) -> bool:
    """Replace constant arrays by Python numbers, where the result keeps its dtype and shape."""
    changed = False
    for node in list(captured.graph.nodes):
        new = None
        if node.target in SCALAR_FORMS:
            new = _second_operand(captured, node)
        elif (
            node.target is aten.masked_fill.Tensor
            and (number := number_of(node.args[2])) is not None
        ):
            new = call(node, aten.masked_fill.Scalar, *node.args[:2], number)
        elif node.target in WHERES:
            new = _where(captured, node)
        if new is not None:
            replace(node, new)
            changed = True
    return changed


def number_of(value: Any) -> bool | int | float | None:
    """The number that an argument is, or that all elements of an array are by its operator; else None."""
    if isinstance(value, bool | int | float):
        return value
    array = tensor_of(value)
    if array is None or array.is_complex():
        return None
    if value.target in EXPANSIONS:
        return number_of(value.args[0])
    if value.target in FILLED:
        return torch.tensor(FILLED[value.target], dtype=array.dtype).item()
    if value.target in (aten.full.default, aten.full_like.default):
        number = arguments(value)["fill_value"]
        return number if isinstance(number, bool | int | float) else None
    return None


def _second_operand(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    x, other, *rest = node.args
    number = number_of(other) if tensor_of(other) is not None else None
    if number is None or isinstance(number, bool) or tensor_of(x) is None:
        return None
    target = SCALAR_FORMS[node.target]
    return _alike(captured, node, target, x, number, *rest, **node.kwargs)


def _where(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    condition, x, other = node.args
    first, second = number_of(x), number_of(other)
    if first is not None and second is not None:
        form = aten.where.Scalar
    elif second is not None:
        form = aten.where.ScalarOther
    else:
        form = aten.where.self if first is None else aten.where.ScalarSelf
    if form is node.target:
        return None
    chosen = (x if first is None else first, other if second is None else second)
    return _alike(captured, node, form, condition, *chosen)


def _alike(
    captured: Captured, node: torch.fx.Node, target: Any, *args: Any, **kwargs: Any
) -> torch.fx.Node | None:
    """A call whose result has the dtype and shape of that of `node`, or None."""
    new = call(node, target, *args, **kwargs)
    found, wanted = new.meta["val"], node.meta["val"]
    if found.dtype == wanted.dtype and same_shape(captured, found, wanted):
        return new
    node.graph.erase_node(new)
    return None
