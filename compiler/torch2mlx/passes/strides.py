"""Strided views of what owns the memory: PyTorch counts positions there, MLX in the operand.

v = slice(x, 0, 2, 8)                     ->   v = slice(x, 0, 2, 8)
y = as_strided(v, [2, 2], [2, 1], 3)           y = as_strided(x, [2, 2], [2, 1], 3)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import unsupported
from torch2mlx.passes.overloads import as_written
from torch2mlx.passes.rewrite import arguments, tensor_of
from torch2mlx.passes.views import viewed

aten = torch.ops.aten

STRIDED = {
    aten.as_strided.default,
    aten.as_strided_.default,
    aten.as_strided_copy.default,
}


def strides(captured: Captured) -> bool:
    """Let each strided view of a part of some memory have the owner of the memory as operand.

    Raises:
        UnsupportedError: The memory is not laid out row by row, or is not all of the owner's.
    """
    changed = False
    for node in captured.graph.nodes:
        if node.target not in (*STRIDED, aten.as_strided_scatter.default):
            continue
        problem = _problem(captured, arguments(node))
        if problem and node.target in STRIDED:
            problem = _rebase(captured, node)
            changed = True
        if problem:
            raise unsupported(node, problem)
    return changed


def _rebase(captured: Captured, node: torch.fx.Node) -> str:
    """Make a call one of what owns its operand's memory; says what is against that."""
    assert isinstance(node.target, OpOverload)
    given = arguments(node)
    owner = given["self"]
    while origins := viewed(owner):
        owner = origins[0]
    if given["storage_offset"] is None:
        start = _start(captured, given["self"])
        if start is None:
            return "where its operand lies in memory varies"
        given["storage_offset"] = start
    given["self"] = owner
    args, kwargs = as_written(node.target, list(given.values()))
    node.args, node.kwargs = tuple(args), kwargs
    return _problem(captured, given)


def _problem(captured: Captured, given: dict[str, Any]) -> str:
    """Why positions in memory are not those in the operand as an array of its own, or nothing."""
    x, offset = tensor_of(given["self"]), given["storage_offset"]
    if x is None or not _row_by_row(captured, x):
        return "what it views is not stored row by row"
    if offset is not None and _start(captured, given["self"]) != 0:
        return "what it views lies inside of other memory"
    lengths = [_example(captured, size) for size in given["size"]]
    steps = [_example(captured, stride) for stride in given["stride"]]
    last = _example(captured, offset or 0)
    last += sum((n - 1) * step for n, step in zip(lengths, steps, strict=True))
    beyond = 0 not in lengths and last >= captured.size(x.numel())
    return "it reaches beyond what it views" if beyond else ""


def _start(captured: Captured, operand: torch.fx.Node) -> int | None:
    """Where an operand begins in its memory, if that is fixed."""
    x = tensor_of(operand)
    start = None if x is None else captured.expr(x.storage_offset())
    return int(start) if start is not None and start.is_Integer else None


def _row_by_row(captured: Captured, x: torch.Tensor) -> bool:
    expected = 1
    for size, stride in reversed(list(zip(x.shape, x.stride(), strict=True))):
        length = captured.size(size)
        if length != 1 and captured.size(stride) != expected:
            return False
        expected *= length
    return True


def _example(captured: Captured, size: Any) -> int:
    """A size, or the node of one, for the example inputs."""
    return captured.size(size.meta["val"] if isinstance(size, torch.fx.Node) else size)
