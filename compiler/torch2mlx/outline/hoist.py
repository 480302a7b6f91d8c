"""Arrays of no input that one module makes for its siblings, too, are made where all are called.

layer[0](x) makes and returns `bias`;          bias = layer[0].bias_embedding(distances)
layer[1](x, bias) only takes it         ->     layer[0](x, bias), layer[1](x, bias)

The siblings then have the same code, and can be one class. Values stay what they were: only the call that
a node belongs to changes.
"""

from __future__ import annotations

import torch.fx

from torch2mlx.capture.provenance import ModuleCall
from torch2mlx.ir import intrinsics
from torch2mlx.ir.regions import region
from torch2mlx.outline.operands import HOISTED
from torch2mlx.outline.scopes import is_size, scope_calls, shared_calls
from torch2mlx.outline.segments import argument_names, array_users

Chain = tuple[ModuleCall, ...]


def hoist(graph: torch.fx.Graph, model_class: str, classes: dict[str, type]) -> None:
    """Move what siblings share out of the module that makes it.

    Args:
        graph: The lowered graph; the nodes' calls are changed.
        model_class: Qualified name of the model's class.
        classes: Module path -> class.
    """
    free = _input_free(graph)
    for node in free:
        own, users = scope_calls(node), array_users(node)
        chains = [scope_calls(user) for user in users]
        if not own or not _shared_with_sibling(own[-1], chains):
            continue
        around = shared_calls([own, *chains])
        cone = _cone(node, free, len(around))
        inner = cone - {node}
        if any(user not in cone for n in inner for user in array_users(n)):
            continue
        names = _names(node, own[len(around) :], users)
        node.meta["forward_args"] = [*argument_names(node), *names]
        if names:
            node.meta.setdefault("role", names[0][1])
        for moved in cone:
            path = scope_calls(moved)[-1].path
            moved.meta[HOISTED] = (path, classes.get(path))
            moved.meta["calls"] = (ModuleCall("", 0, model_class), *around)


def _input_free(graph: torch.fx.Graph) -> dict[torch.fx.Node, None]:
    """The arrays that depend on weights and sizes only, in order."""
    free: dict[torch.fx.Node, None] = {}
    for node in graph.nodes:
        is_call = node.op in ("call_function", "call_module")
        if not is_call or is_size(node) or _is_written(node) or region(node):
            continue
        sources = [n for n in node.all_input_nodes if not is_size(n)]
        if all(
            (n.op == "get_attr" and not _is_written(n)) or n in free for n in sources
        ):
            free[node] = None
    return free


def _is_written(node: torch.fx.Node) -> bool:
    """Whether a value is a new state of a buffer, or a buffer that changes."""
    return any(n.target is intrinsics.store for n in (node, *node.users))


def _shared_with_sibling(own: ModuleCall, users: list[Chain]) -> bool:
    """Whether another module of the same class uses the value."""
    return any(
        call.cls == own.cls and call.path != own.path
        for chain in users
        if own not in chain
        for call in chain
    )


def _cone(
    node: torch.fx.Node, free: dict[torch.fx.Node, None], depth: int
) -> set[torch.fx.Node]:
    """What a value is made of, as far as it is made deeper than `depth` calls."""
    found: set[torch.fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in found and len(scope_calls(current)) > depth:
            found.add(current)
            waiting += [n for n in current.all_input_nodes if n in free]
    return found


def _names(
    node: torch.fx.Node, calls: Chain, users: list[torch.fx.Node]
) -> list[tuple[str, str]]:
    """As what the modules that made a value receive it now: as their siblings do."""
    received = dict(argument_names(node))
    siblings = [call for user in users for call in scope_calls(user)]
    names: list[tuple[str, str]] = []
    for call in calls:
        given = (
            received[other.path]
            for other in siblings
            if other.cls == call.cls and other.path in received
        )
        name = next(given, None)
        if name is not None and call.path not in received:
            names.append((call.path, name))
    return names
