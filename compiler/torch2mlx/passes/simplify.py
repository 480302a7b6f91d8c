"""Drop what changes nothing, and write the same conversion always the same way.

    _assert_tensor_metadata(x, dtype=float32)     ->
    y = slice(x, 0, 0, 9223372036854775807)           y = x
    z = to.dtype_layout(x, dtype=bool)                z = to.dtype(x, bool)
    w = dropout(x, 0.0, False)                        w = x

What PyTorch copies and MLX need not (`clone`, `contiguous`, `detach`) is dropped too: the graph is
functional by now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, call, replace, same_shape, tensor_of
from torch2mlx.passes.sizes import expression, is_nonnegative
from torch2mlx.passes.views import DROPOUTS, EXPANSIONS, PERMUTES, RESHAPES, axis_order

aten = torch.ops.aten

Rule = Callable[[Captured, torch.fx.Node], torch.fx.Node | None]

# `x[2:]` is captured with the largest integer as its end.
UNBOUNDED = 2**31
VIEWS = {aten.view.default, aten._unsafe_view.default}
ASSERTIONS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
COPIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.lift.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
}
CONVERSIONS = {
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten.to.prim_dtype,
    aten._to_copy.default,
    aten.type_as.default,
}


def simplify(captured: Captured) -> bool:
    """Replace each call that changes nothing by its operand."""
    changed = False
    for node in list(captured.graph.nodes):
        if node.target in ASSERTIONS:
            captured.graph.erase_node(node)
            changed = True
            continue
        rule = RULES.get(node.target)
        new = rule(captured, node) if rule is not None else None
        if new is not None:
            replace(node, new)
            changed = True
    return changed


def _operand(node: torch.fx.Node) -> torch.fx.Node:
    x = node.args[0]
    assert isinstance(x, torch.fx.Node)
    return x


def _copy(captured: Captured, node: torch.fx.Node) -> torch.fx.Node:
    return _operand(node)


def _unchanged(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """The operand, where shape and dtype are the same."""
    x, own = tensor_of(node.args[0]), tensor_of(node)
    if x is None or own is None or x.dtype != own.dtype:
        return None
    return _operand(node) if same_shape(captured, x, own) else None


def _view(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """Without strides, `view` is `reshape`."""
    return _unchanged(captured, node) or call(
        node, aten.reshape.default, *node.args[:2]
    )


def _conversion(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    x, own = tensor_of(node.args[0]), tensor_of(node)
    if x is None or own is None:
        return None
    if x.dtype == own.dtype:
        return _operand(node)
    if node.target is aten.to.dtype and len(node.args) == 2 and not node.kwargs:
        return None
    return call(node, aten.to.dtype, _operand(node), own.dtype)


def _permute(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    order = axis_order(node)
    return _operand(node) if order == tuple(range(len(order))) else None


def _squeeze(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """`unsqueeze` and then `squeeze` of the same axis."""
    x, dim = node.args[:2]
    own = tensor_of(node)
    if (
        own is not None
        and isinstance(x, torch.fx.Node)
        and x.target is aten.unsqueeze.default
    ):
        ndim = own.ndim + 1
        if isinstance(dim, int) and dim % ndim == x.args[1] % ndim:  # type: ignore[operator]
            return _operand(x)
    return _unchanged(captured, node)


def _unsqueeze(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """`squeeze` of an axis, and then `unsqueeze` where it was."""
    x, dim = node.args[:2]
    own = tensor_of(node)
    if (
        own is None
        or not isinstance(x, torch.fx.Node)
        or x.target is not aten.squeeze.dim
    ):
        return None
    before = tensor_of(x.args[0])
    if before is None or not same_shape(captured, before, own):
        return None
    same = dim % own.ndim == x.args[1] % own.ndim  # type: ignore[operator]
    return _operand(x) if same else None


def _slice(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    x = tensor_of(node.args[0])
    assert x is not None
    given = arguments(node)
    if given["step"] != 1 or given["start"] not in (None, 0):
        return None
    return (
        _operand(node)
        if _reaches(captured, given["end"], x.shape[given["dim"]])
        else None
    )


def _reaches(captured: Captured, end: Any, size: Any) -> bool:
    if end is None or (isinstance(end, int) and end >= UNBOUNDED):
        return True
    return is_nonnegative(expression(captured, end) - captured.expr(size))


def _repeat(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """Once along every axis, which may be new; axes of size 1 are expanded."""
    repeats, x = node.args[1], _operand(node)
    assert isinstance(repeats, list | tuple)
    sizes = x.meta["val"].shape
    new = len(repeats) - len(sizes)
    if all(isinstance(count, int) and count == 1 for count in repeats):
        for _ in range(new):
            x = call(node, aten.unsqueeze.default, x, 0)
        return x
    ones = [captured.expr(size) == 1 for size in sizes]
    if not all(o or c == 1 for o, c in zip(ones, repeats[new:], strict=True)):
        return None
    kept = [c if o else -1 for o, c in zip(ones, repeats[new:], strict=True)]
    return call(node, aten.expand.default, x, [*repeats[:new], *kept])


def _dropout(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    return _operand(node) if node.args[1] == 0 else None


def _cat(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """One array, or all but those without elements."""
    tensors, dim = node.args[0], arguments(node)["dim"]
    assert isinstance(tensors, list | tuple)
    own = node.meta["val"]
    kept: list[Any] = [x for x in tensors if not _is_empty(captured, x, dim)]
    alike = all(x.meta["val"].dtype == own.dtype for x in kept)
    if len(kept) == 1 and alike and kept[0].meta["val"].ndim == own.ndim:
        return kept[0]
    return call(node, node.target, kept, dim) if 1 < len(kept) < len(tensors) else None


def _is_empty(captured: Captured, x: Any, dim: int) -> bool:
    """Whether an operand of `cat` adds nothing; one of shape [0] may stand beside any."""
    shape = x.meta["val"].shape
    return captured.expr(shape[dim if len(shape) > 1 else 0]) == 0


def _neutral(number: int, floats: bool) -> Rule:
    """Arithmetic with the Python number that changes nothing; `floats`: not even -0.0."""

    def rule(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
        if len(node.args) != 2 or type(node.args[1]) not in (int, float):
            return None
        x = tensor_of(node.args[0])
        if x is None or node.args[1] != number or not (floats or _is_integer(x.dtype)):
            return None
        return _unchanged(captured, node)

    return rule


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _by_example(captured: Captured, node: torch.fx.Node) -> torch.fx.Node | None:
    """`x.new_zeros(size)` needs nothing of `x` but its dtype."""
    given, own = arguments(node), tensor_of(node)
    if own is None:
        return None
    fill = [given["fill_value"]] if "fill_value" in given else []
    creation = CREATIONS[node.target]
    options = {"dtype": own.dtype, "device": own.device}
    return call(node, creation, given["size"], *fill, result=own, **options)


CREATIONS: dict[Any, Any] = {
    aten.new_zeros.default: aten.zeros.default,
    aten.new_ones.default: aten.ones.default,
    aten.new_full.default: aten.full.default,
}
RULES: dict[Any, Rule] = {
    **dict.fromkeys(CREATIONS, _by_example),
    **dict.fromkeys(COPIES, _copy),
    **dict.fromkeys(CONVERSIONS, _conversion),
    **dict.fromkeys(DROPOUTS, _dropout),
    **dict.fromkeys(RESHAPES | EXPANSIONS, _unchanged),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(PERMUTES, _permute),
    aten.squeeze.dim: _squeeze,
    aten.unsqueeze.default: _unsqueeze,
    aten.slice.Tensor: _slice,
    aten.cat.default: _cat,
    aten.repeat.default: _repeat,
    aten.add.Tensor: _neutral(0, floats=False),
    aten.add.Scalar: _neutral(0, floats=False),
    aten.sub.Tensor: _neutral(0, floats=True),
    aten.sub.Scalar: _neutral(0, floats=True),
    aten.mul.Tensor: _neutral(1, floats=True),
    aten.mul.Scalar: _neutral(1, floats=True),
    aten.div.Tensor: _neutral(1, floats=True),
    aten.div.Scalar: _neutral(1, floats=True),
    aten.pow.Tensor_Scalar: _neutral(1, floats=True),
}
