"""Assign an axis order to every array of a lowered graph, and rewrite the graph accordingly."""

from __future__ import annotations

from torch2mlx.capture import Captured
from torch2mlx.layout.fold import fold_keepdims
from torch2mlx.layout.pins import IOLayout, pins
from torch2mlx.layout.problem import Problem
from torch2mlx.layout.rewrite import Rewriter, Transpose
from torch2mlx.lower.driver import Lowered


def assign_layouts(
    lowered: Lowered, captured: Captured, io_layout: IOLayout = "mlx"
) -> list[Transpose]:
    """Store arrays channels-last where that saves transposes.

    An array stored channels-last has `meta["perm"]`, the order in which PyTorch's axes are stored, and
    `meta["hint"]` of that shape; `meta["val"]` stays as PyTorch has it. The output node's `meta["perms"]`
    has one such order, or None, for each output of the model.

    Args:
        lowered: Its graph is changed in place.
        captured: The model that it was lowered from.
        io_layout: "mlx" leaves the order of the model's inputs and outputs to the assignment, "torch"
            keeps PyTorch's; or one of them for some, see `pins`.

    Returns:
        The transposes that are left and that the author did not write.
    """
    fold_keepdims(lowered.graph, captured)
    problem = Problem(lowered.graph, captured, pins(io_layout, captured))
    return Rewriter(problem).run()
