"""Comparisons of positions, the parts of causal masks.

le(arange(n), unsqueeze(arange(n), 1))                     ->   tri(n, n, 0)
gt(arange(n), sub(unsqueeze(arange(n), 1), 4))             ->   bitwise_not(tri(n, n, -4))

Where a module call compares the same positions in more than one way, they are made once and compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls
from torch2mlx.ir.operators import TRI
from torch2mlx.ir.regions import region
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


class _Compared(NamedTuple):
    """Positions of rows and columns that are compared: whether `offset + steps * (row, column)` is at least 0."""

    axes: tuple[int, int]
    sizes: tuple[sympy.Expr, sympy.Expr]
    steps: tuple[sympy.Expr, sympy.Expr]
    offset: sympy.Expr


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    known, shape = Formulas(captured), root.meta["val"].shape
    found = _compared(known, root)
    if found is None:
        raise Declined("")
    if found.steps not in ((1, -1), (-1, 1)) or not found.offset.is_Integer:
        raise Declined("positions are compared at different rates")
    sizes = shape_arguments(captured, root, [shape[axis] for axis in found.axes])
    if sizes is None:
        raise Declined("its sizes are not those of an input")
    lower, offset = found.steps == (1, -1), int(found.offset)
    diagonal = offset if lower else -offset - 1
    if _is_compared_again(known, root, found):
        mask = _comparison(root, lower, sizes, diagonal)
    else:
        mask = call(root, TRI, *sizes, diagonal)
        if not lower:
            mask = call(root, aten.bitwise_not.default, mask)
    for axis in range(len(shape)):
        if axis not in found.axes:
            mask = call(root, aten.unsqueeze.default, mask, axis)
    whole = broadcast(captured, root, mask, shape)
    if whole is None:
        raise Declined("its sizes are not those of an input")
    return whole


def _comparison(
    root: torch.fx.Node, lower: bool, sizes: list[Any], diagonal: int
) -> torch.fx.Node:
    """Whether column <= row + diagonal, or with not `lower` whether it is greater."""
    rows, columns = (call(root, aten.arange.default, size) for size in sizes)
    rows = call(root, aten.unsqueeze.default, rows, 1)
    if diagonal:
        target = aten.add.Tensor if diagonal > 0 else aten.sub.Tensor
        rows = call(root, target, rows, abs(diagonal))
    return call(root, aten.le.Tensor if lower else aten.gt.Tensor, columns, rows)


def _compared(known: Formulas, node: torch.fx.Node) -> _Compared | None:
    """What a comparison compares, if both operands count along an axis and these are neighbours."""
    found = known.of(node)
    moving = [axis for axis, step in enumerate(found.steps) if step] if found else []
    if found is None or len(moving) != 2 or moving[1] != moving[0] + 1:
        return None
    if not _are_positions(known, node):
        return None
    axes, shape = (moving[0], moving[1]), node.meta["val"].shape
    sizes = [known.captured.expr(shape[axis]) for axis in axes]
    steps = [found.steps[axis] for axis in axes]
    return _Compared(axes, (sizes[0], sizes[1]), (steps[0], steps[1]), found.offset)


def _are_positions(known: Formulas, root: torch.fx.Node) -> bool:
    """Whether both operands count along one axis; differences of positions are of use elsewhere."""
    for operand in root.all_input_nodes:
        found = known.of(operand)
        if found is None or found.sign or sum(s != 0 for s in found.steps) != 1:
            return False
    return len(root.all_input_nodes) == 2


def _is_compared_again(known: Formulas, root: torch.fx.Node, own: _Compared) -> bool:
    """Whether the module call compares the same positions in another way: once made, they cost nothing."""
    for node in root.graph.nodes:
        if node.target in COMPARISONS and region(node) == region(root):
            found = _compared(known, node)
            if found is None or module_calls(node) != module_calls(root):
                continue
            if found.sizes == own.sizes and found[2:] != own[2:]:
                return True
    return False


TRIANGLE = Fusion("triangle", frozenset(COMPARISONS), Node(COMPARISONS), _build)
