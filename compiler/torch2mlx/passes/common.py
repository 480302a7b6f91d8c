"""What a module call computes twice it computes once.

a = arange(n); b = arange(n)          ->     a = arange(n)
y = sub(unsqueeze(a, 1), b)                  y = sub(unsqueeze(a, 1), a)

Views cost nothing, so those stay where they are read; what two module calls compute does too, since classes
and loops are made of them.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from torch2mlx.capture import Captured
from torch2mlx.ir.regions import region
from torch2mlx.passes.rewrite import replace
from torch2mlx.passes.views import EXPANSIONS, PERMUTES, RESHAPES

aten = torch.ops.aten

FREE = {*RESHAPES, *PERMUTES, *EXPANSIONS, aten.slice.Tensor, aten.select.int}


def common(captured: Captured) -> bool:
    """Let each call stand for the later ones of the same module call that yield the same."""
    changed = False
    numbers = itertools.count()
    # Two nodes that yield the same value have the same number
    values: dict[torch.fx.Node, int] = {}
    known: dict[Any, torch.fx.Node] = {}
    for node in list(captured.graph.nodes):
        key = _key(node, values)
        first = node if key is None else known.setdefault(key, node)
        if first is node:
            values[node] = next(numbers)
        elif _is_free(node):
            values[node] = values[first]
        else:
            replace(node, first)
            changed = True
    return changed


def _is_free(node: torch.fx.Node) -> bool:
    return node.target in FREE or not isinstance(node.meta.get("val"), torch.Tensor)


def _key(node: torch.fx.Node, values: dict[torch.fx.Node, int]) -> Any:
    """What two nodes that yield the same have in common; None where a node is like no other."""
    if not _is_function(node.target):
        return None
    leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
    told = tuple(
        ("value", values[leaf]) if isinstance(leaf, torch.fx.Node) else _told(leaf)
        for leaf in leaves
    )
    stack = tuple(node.meta.get("nn_module_stack", {}).values())
    return node.target, told, str(structure), stack, region(node)


def _is_function(target: Any) -> bool:
    """Whether equal arguments give equal results."""
    if target is operator.getitem:
        return True
    return (
        isinstance(target, OpOverload)
        and not target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in target.tags
    )


def _told(leaf: Any) -> tuple[str, str]:
    """A number with its type, since 1, 1.0 and True are equal."""
    return type(leaf).__name__, repr(leaf)
