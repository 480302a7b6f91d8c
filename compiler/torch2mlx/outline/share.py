"""What sibling modules each compute from the same values is computed once, where all of them are called.

layer[0](x, bias, mask):  m = where(mask, bias, -inf)          m = where(mask, bias, -inf)
layer[1](x, bias, mask):  m = where(mask, bias, -inf)    ->    layer[0](x, m)
                                                               layer[1](x, m)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.capture.provenance import ModuleCall
from torch2mlx.ir import intrinsics
from torch2mlx.ir.regions import region
from torch2mlx.lower.facade import map_values
from torch2mlx.outline.operands import HOISTED
from torch2mlx.outline.scopes import is_size, scope_calls, shared_calls
from torch2mlx.outline.segments import argument_names
from torch2mlx_templates.helpers import assign

# Where functions come from whose result depends on their operands alone
PURE = ("mlx.core", "_operator")


def share(graph: torch.fx.Graph, model_class: str, classes: dict[str, type]) -> None:
    """Compute once what modules of one class compute alike.

    Args:
        graph: The lowered graph, changed in place.
        model_class: Qualified name of the model's class.
        classes: Module path -> class.
    """
    known: dict[Any, torch.fx.Node] = {}
    for node in list(graph.nodes):
        if not _may_move(node):
            continue
        first = known.setdefault(_key(node), node)
        if first is node or not _are_siblings(first, node):
            continue
        around = shared_calls([scope_calls(first), scope_calls(node)])
        if not all(_is_visible(n, around) for n in node.all_input_nodes):
            continue
        names = list(_names(first, node))
        if names:
            first.meta.setdefault("role", names[0][1])
        node.replace_all_uses_with(first)
        graph.erase_node(node)
        if HOISTED not in first.meta:
            path = scope_calls(first)[-1].path
            first.meta[HOISTED] = (path, classes.get(path))
        first.meta["calls"] = (ModuleCall("", 0, model_class), *around)
        first.meta["forward_args"] = list(
            dict.fromkeys([*argument_names(first), *names])
        )


def _may_move(node: torch.fx.Node) -> bool:
    """Whether a node computes an array from its operands, and nothing else happens."""
    if node.op != "call_function" or is_size(node) or region(node):
        return False
    module = getattr(node.target, "__module__", "")
    used = {user.target for user in node.users}
    return (
        module in PURE
        and isinstance(node.meta.get("hint"), mx.array)
        and not used & {assign, intrinsics.store}
        and bool(scope_calls(node) or HOISTED in node.meta)
    )


def _key(node: torch.fx.Node) -> Any:
    """Equal for nodes that compute the same."""

    def leaf(value: Any) -> Any:
        return value if isinstance(value, torch.fx.Node) else (type(value), repr(value))

    args = map_values(leaf, [*node.args])
    return id(node.target), repr(args), repr(map_values(leaf, dict(node.kwargs)))


def _are_siblings(first: torch.fx.Node, node: torch.fx.Node) -> bool:
    """Whether two nodes stand in two modules of the same class."""
    made_in = first.meta.get(HOISTED, (None, None))[0]
    own = scope_calls(node)
    if not own:
        return False
    if made_in is not None:
        return made_in != own[-1].path
    other = scope_calls(first)[-1]
    return other.cls == own[-1].cls and other.path != own[-1].path


def _is_visible(node: torch.fx.Node, around: tuple[ModuleCall, ...]) -> bool:
    """Whether a value may be used in the calls `around`."""
    if is_size(node) or node.op == "get_attr":
        return False
    calls = () if node.op == "placeholder" else scope_calls(node)
    return calls == around[: len(calls)]


def _names(*nodes: torch.fx.Node) -> Iterator[tuple[str, str]]:
    """The modules receive a value under the name of the operand that it has the shape and dtype of."""
    for node in nodes:
        hint = node.meta["hint"]
        path = scope_calls(node)
        inside = {call.path for call in path}
        for operand in node.all_input_nodes:
            other = operand.meta.get("hint")
            if not isinstance(other, mx.array) or other.dtype != hint.dtype:
                continue
            if other.shape[-2:] == hint.shape[-2:]:
                yield from (n for n in argument_names(operand) if n[0] in inside)
                break
