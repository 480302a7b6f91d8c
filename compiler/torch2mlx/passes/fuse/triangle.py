"""Comparisons of positions, the parts of causal masks.

le(arange(n), unsqueeze(arange(n), 1))                     ->   tri(n, n, 0)
gt(arange(n), sub(unsqueeze(arange(n), 1), 4))             ->   bitwise_not(tri(n, n, -4))
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import TRI
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.creation import broadcast
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import Declined, Match, Node
from torch2mlx.passes.rewrite import call
from torch2mlx.passes.sizes import shape_arguments

aten = torch.ops.aten

COMPARISONS = {
    aten.le.Tensor,
    aten.lt.Tensor,
    aten.ge.Tensor,
    aten.gt.Tensor,
}


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    known, shape = Formulas(captured), root.meta["val"].shape
    found = known.of(root)
    moving = [axis for axis, step in enumerate(found.steps) if step] if found else []
    if found is None or len(moving) != 2 or moving[1] != moving[0] + 1:
        raise Declined("")
    if not _are_positions(known, root):
        raise Declined("")
    steps = tuple(found.steps[axis] for axis in moving)
    if steps not in ((1, -1), (-1, 1)) or not found.offset.is_Integer:
        raise Declined("positions are compared at different rates")
    lower, offset = steps == (1, -1), int(found.offset)
    sizes = shape_arguments(captured, root, [shape[axis] for axis in moving])
    if sizes is None:
        raise Declined("its sizes are not those of an input")
    mask = call(root, TRI, *sizes, offset if lower else -offset - 1)
    if not lower:
        mask = call(root, aten.bitwise_not.default, mask)
    for axis in range(len(shape)):
        if axis not in moving:
            mask = call(root, aten.unsqueeze.default, mask, axis)
    whole = broadcast(captured, root, mask, shape)
    if whole is None:
        raise Declined("its sizes are not those of an input")
    return whole


def _are_positions(known: Formulas, root: torch.fx.Node) -> bool:
    """Whether both operands count along one axis; differences of positions are of use elsewhere."""
    for operand in root.all_input_nodes:
        found = known.of(operand)
        if found is None or found.sign or sum(s != 0 for s in found.steps) != 1:
            return False
    return len(root.all_input_nodes) == 2


TRIANGLE = Fusion("triangle", frozenset(COMPARISONS), Node(COMPARISONS), _build)
