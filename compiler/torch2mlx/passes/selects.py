"""Pick a part before its axis is brought to the front, where MLX would copy it.

    q = select(permute(qkv, [2, 0, 3, 1, 4]), 0, 0)     ->     q = permute(select(qkv, 2, 0), [0, 2, 1, 3])

In MLX `x[0]` gathers the part, `x[:, :, 0]` only looks at it.
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, call, replace
from torch2mlx.passes.views import PERMUTES, axis_order

aten = torch.ops.aten


def selects(captured: Captured) -> bool:
    """Exchange each permute with the selections from it, if nothing else takes it."""
    changed = False
    for node in list(captured.graph.nodes):
        if node.target not in PERMUTES or not node.users:
            continue
        users = list(node.users)
        if all(_picks_first_axis(user, node) for user in users):
            for user in users:
                _exchange(user, node)
            captured.graph.erase_node(node)
            changed = True
    return changed


def _picks_first_axis(user: torch.fx.Node, permuted: torch.fx.Node) -> bool:
    if user.target is not aten.select.int or user.args[0] is not permuted:
        return False
    given = arguments(user)
    axis = given["dim"] % permuted.meta["val"].ndim
    return (
        axis == 0 and axis_order(permuted)[0] != 0 and isinstance(given["index"], int)
    )


def _exchange(user: torch.fx.Node, permuted: torch.fx.Node) -> None:
    first, *rest = axis_order(permuted)
    x = permuted.args[0]
    part = call(user, aten.select.int, x, first, arguments(user)["index"])
    order = [axis - (axis > first) for axis in rest]
    new = part
    if order != sorted(order):
        new = call(user, aten.permute.default, part, order)
    replace(user, new)
