"""What a lowered graph does that a Metal GPU cannot, though MLX's CPU backend can.

Metal has no float64, and its scatter kernels take no 64-bit integers. Tests on Linux cannot show either.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.ir import intrinsics
from torch2mlx.lower.facade import map_values
from torch2mlx_templates import helpers

SCATTERS = {*intrinsics.AT.values(), mx.put_along_axis, helpers.assign}
WIDE = {mx.int64, mx.uint64}


def metal_problems(graph: torch.fx.Graph) -> list[str]:
    """One sentence for each node of a lowered graph that Metal would refuse; empty where it runs."""
    problems = []
    for node in graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if mx.float64 in _dtypes(node):
            problems.append(f"{node.name}: {name} uses float64, which Metal lacks")
        if (
            node.target in SCATTERS
            and _writes_by_arrays(node)
            and _written(node) in WIDE
        ):
            problems.append(f"{node.name}: {name} scatters 64-bit integers on Metal")
    return problems


def _dtypes(node: torch.fx.Node) -> list[Any]:
    """The dtypes that a node's result and arguments have."""
    found: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, mx.Dtype):
            found.append(value)
        elif isinstance(value, mx.array):
            found.append(value.dtype)

    map_values(visit, (node.meta.get("hint"), node.args, dict(node.kwargs)))
    return found


def _written(node: torch.fx.Node) -> Any:
    hint = node.meta.get("hint")
    return hint.dtype if isinstance(hint, mx.array) else None


def _writes_by_arrays(node: torch.fx.Node) -> bool:
    """Whether the index holds an array; slices alone need no scatter."""
    arrays: list[torch.fx.Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, torch.fx.Node) and isinstance(
            value.meta["hint"], mx.array
        ):
            arrays.append(value)

    map_values(visit, node.args[1])
    return bool(arrays)
