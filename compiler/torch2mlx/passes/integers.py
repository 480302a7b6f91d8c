"""Arithmetic of integers and conditions in its shorter form; every number stays the same.

mul(to.dtype(positions > 0, int64), 16)      ->   where.Scalar(positions > 0, 16, 0)
neg(clamp_max(sub(a, b), 0))                 ->   clamp_min(sub(b, a), 0)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, call, replace, same_shape, tensor_of

aten = torch.ops.aten
Node = torch.fx.Node

INTEGERS = {torch.int64, torch.int32}


def integers(captured: Captured) -> bool:
    """Replace each call that has a shorter form."""
    changed = False
    for node in list(captured.graph.nodes):
        rule = RULES.get(node.target)
        new = rule(node) if rule is not None else None
        if new is None:
            continue
        own, found = node.meta["val"], new.meta["val"]
        if found.dtype == own.dtype and same_shape(captured, found, own):
            replace(node, new)
            changed = True
    return changed


def _multiplied(node: Node) -> Node | None:
    """A condition times a number is that number where it holds."""
    x, number = node.args[:2]
    if type(number) is not int or getattr(x, "target", None) is not aten.to.dtype:
        return None
    condition = x.args[0]  # type: ignore[union-attr]
    if condition.meta["val"].dtype != torch.bool:  # type: ignore[union-attr]
        return None
    return call(node, aten.where.Scalar, condition, number, 0)


def _negated(node: Node) -> Node | None:
    """The negated minimum of a difference and 0 is the maximum of the difference the other way and 0."""
    x = node.args[0]
    if not _is_only_for(x, aten.clamp_max.default) or x.args[1] != 0:  # type: ignore[union-attr]
        return None
    difference = x.args[0]  # type: ignore[union-attr]
    if not _is_only_for(difference, aten.sub.Tensor):
        return None
    given = arguments(difference)  # type: ignore[arg-type]
    operands = [given["other"], given["self"]]
    if given["alpha"] != 1 or any(tensor_of(x) is None for x in operands):
        return None
    if node.meta["val"].dtype not in INTEGERS:
        return None
    swapped = call(node, aten.sub.Tensor, *operands, origin=difference)
    return call(node, aten.clamp_min.default, swapped, 0)


def _is_only_for(x: Any, target: Any) -> bool:
    """Whether a node is a call of `target` that one other node takes."""
    if not isinstance(x, Node) or x.target is not target:
        return False
    return sum(bool(user.users) or user.op == "output" for user in x.users) == 1


RULES: dict[Any, Callable[[Node], Node | None]] = {
    aten.mul.Tensor: _multiplied,
    aten.neg.default: _negated,
}
