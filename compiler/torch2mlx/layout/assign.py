"""Assign an axis order to every array of a lowered graph, and rewrite the graph accordingly."""

from __future__ import annotations

from typing import Any

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.layout.fold import fold_keepdims
from torch2mlx.layout.perms import nbytes, permutation
from torch2mlx.layout.pins import IOLayout, pins
from torch2mlx.layout.problem import Problem, by_author
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


def keep_layouts(lowered: Lowered) -> list[Transpose]:
    """Leave every array in PyTorch's order, and the transposes around each operation that has another.

    That is what the assignment is measured against.

    Args:
        lowered: Its output node gets `meta["perms"]`, all None.

    Returns:
        The transposes that the author did not write.
    """
    (output,) = (node for node in lowered.graph.nodes if node.op == "output")
    values: Any = output.args[0]
    output.meta["perms"] = [None] * len(values)
    return [
        Transpose(
            nbytes(node),
            f"{node.meta['origin'].target} is channels-last in MLX",
            source_line(node.meta["origin"]),
            next((c.path for c in reversed(module_calls(node.meta["origin"]))), ""),
        )
        for node in lowered.graph.nodes
        if permutation(node) is not None and not by_author(node)
    ]
