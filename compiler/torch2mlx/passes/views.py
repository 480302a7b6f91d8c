"""Views: which calls share memory with an operand, and what a write through one means for its base.

v = slice(x, 1, 0, 4); v.mul_(2)   ->   x = slice_scatter(x, mul(slice(x, 1, 0, 4), 2), 1, 0, 4)
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.passes.overloads import as_written
from torch2mlx.passes.rewrite import arguments, call, keeps_shape, tensor_of

aten = torch.ops.aten

# PyTorch returns the operand itself in evaluation; the fake kernel that export runs makes a copy.
DROPOUTS = {
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
}
IDENTITIES = {
    *DROPOUTS,
    aten.alias.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh.default,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
}
RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.view_as.default,
    aten.reshape_as.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.ravel.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.atleast_1d.default,
    aten.atleast_2d.default,
    aten.atleast_3d.default,
}
PERMUTES = {
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.numpy_T.default,
    aten.mT.default,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.moveaxis.int,
    aten.moveaxis.intlist,
    aten.swapaxes.default,
    aten.swapdims.default,
}
SCATTERS: dict[Any, OpOverload] = {
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}
EXPANSIONS = {aten.expand.default, aten.expand_as.default, aten.broadcast_to.default}
CONVERSIONS: dict[Any, OpOverload] = {
    aten.view_as_real.default: aten.view_as_complex.default,
    aten.view_as_complex.default: aten.view_as_real.default,
}


def viewed(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The operands whose memory `node` shares: none where its result is new."""
    if node.op != "call_function":
        return []
    if node.target in DROPOUTS:
        x, p, train = node.args[:3]
        return [] if train and p else [x]  # type: ignore[list-item]
    own = _storages(node.meta.get("val"))
    found = [n for n in node.all_input_nodes if own & _storages(n.meta.get("val"))]
    # `x.view_as(y)` of a `y` that shares memory with x is still a view of x alone.
    return found if isinstance(node.meta.get("val"), list | tuple) else found[:1]


def _storages(value: Any) -> set[int]:
    tensors = value if isinstance(value, list | tuple) else [value]
    return {
        t.untyped_storage()._cdata
        for t in tensors
        if isinstance(t, torch.Tensor) and t.layout is torch.strided
    }


def axis_order(node: torch.fx.Node) -> tuple[int, ...]:
    """Which axis of its operand each axis of a call in `PERMUTES` is."""
    operand = tensor_of(node.args[0])
    assert operand is not None
    # Sizes that are all different show where each axis goes.
    probe = torch.empty(tuple(range(operand.ndim)), device="meta")
    return tuple(node.target(probe, *node.args[1:], **node.kwargs).shape)  # type: ignore[operator]


def inverse_order(order: tuple[int, ...]) -> list[int]:
    """The permutation that undoes `order`."""
    return sorted(range(len(order)), key=order.__getitem__)


def written(
    here: torch.fx.Node, view: torch.fx.Node, base: torch.fx.Node, value: torch.fx.Node
) -> torch.fx.Node | None:
    """`base` after `value` was written to its view; None where that cannot be said.

    Args:
        here: New calls are put before this node.
        view: The call that makes the view; of several views of one call, the getitem.
        base: A node with the value that is viewed.
        value: What the view holds now.
    """
    target = view.target
    if target in IDENTITIES:
        return value
    if target in RESHAPES:
        return call(here, aten.reshape_as.default, value, base)
    if target in PERMUTES:
        return call(here, aten.permute.default, value, inverse_order(axis_order(view)))
    if target in CONVERSIONS:
        return call(here, CONVERSIONS[target], value)
    if target in SCATTERS:
        rest = list(arguments(view).values())[1:]
        args, kwargs = as_written(SCATTERS[target], [base, value, *rest])
        return call(here, SCATTERS[target], *args, **kwargs)
    if target is aten.narrow.default:
        return _narrowed(here, view, base, value)
    if target in EXPANSIONS and keeps_shape(view, view.args[0]):  # type: ignore[arg-type]
        return value
    if target is operator.getitem:
        return _part_written(here, view, base, value)
    return None


def _narrowed(here: Any, view: Any, base: Any, value: Any) -> torch.fx.Node | None:
    _, dim, start, length = view.args
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    return call(
        here, aten.slice_scatter.default, base, value, dim, start, start + length
    )


def _part_written(here: Any, view: Any, base: Any, value: Any) -> torch.fx.Node | None:
    """A write to one result of `split`, `chunk`, `unbind`, ...: the others stay."""
    views, index = view.args
    dim = arguments(views).get("dim")
    if dim is None:
        return None
    if views.target is aten.unbind.int:
        return call(here, aten.select_scatter.default, base, value, dim, index)
    parts = call(here, views.target, base, *views.args[1:], **views.kwargs)
    count = len(views.meta["val"])
    joined = [
        value if i == index % count else call(here, operator.getitem, parts, i)
        for i in range(count)
    ]
    return call(here, aten.cat.default, joined, dim)
