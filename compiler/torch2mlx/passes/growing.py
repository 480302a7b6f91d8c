"""A concatenation of all that an earlier one has, and more, begins with that one.

b = cat([x, y])                     b = cat([x, y])
c = cat([x, y, z])          ->      c = cat([b, z])

A block that hands a growing list to its layers, each of which concatenates it, becomes one that hands on what
is concatenated: as many bytes, fewer pieces, and layers that all take one array.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.regions import region

aten = torch.ops.aten
STACK = "nn_module_stack"


def growing(captured: Captured) -> bool:
    """Let concatenations begin with earlier ones where they can."""
    known: dict[Any, torch.fx.Node] = {}
    changed = False
    for node in captured.graph.nodes:
        parts = _parts(node)
        if parts is None:
            continue
        arrays, dim, key = parts
        for count in range(len(arrays) - 1, 1, -1):
            earlier = known.get((arrays[:count], key))
            if earlier is not None:
                node.args = ([earlier, *arrays[count:]], dim)
                node.kwargs = {}
                _lift(earlier, node)
                changed = True
                break
        known.setdefault((arrays, key), node)
    return changed


def _parts(node: torch.fx.Node) -> tuple[tuple[torch.fx.Node, ...], int, Any] | None:
    """What a concatenation takes, its axis as written, and how: which axis, which branch or loop.

    None for one that also changes dtypes or leaves out empty arrays.
    """
    if node.target is not aten.cat.default:
        return None
    arrays: Any = tuple(node.args[0])  # type: ignore[arg-type]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    result = node.meta["val"]
    if any(array.meta["val"].dtype != result.dtype for array in arrays):
        return None
    if any(array.meta["val"].ndim != result.ndim for array in arrays):
        return None
    return arrays, dim, (dim % result.ndim, region(node))


def _lift(node: torch.fx.Node, user: torch.fx.Node) -> None:
    """Let a call belong to the module call around it and `user`, and not to one within."""
    own, other = (list(n.meta.get(STACK, {}).items()) for n in (node, user))
    shared = 0
    while shared < min(len(own), len(other)) and own[shared] == other[shared]:
        shared += 1
    if own:
        node.meta[STACK] = dict(own[:shared])
