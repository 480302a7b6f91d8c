"""The graphs of branches and loops: which module calls their nodes belong to.

PyTorch traces the functions that `torch.cond` and the like get on their own. Its nodes name modules by the
`id` of the Python object, and count the calls of each from zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.fx

from torch2mlx.capture.provenance import calls_in, module_calls


def place_branches(owner: torch.fx.GraphModule, model: torch.nn.Module) -> None:
    """Give the nodes of all inner graphs module stacks like those of the outer one.

    Args:
        owner: The module of the outer graph, changed in place.
        model: Where the modules are found.
    """
    paths = {str(id(module)): path for path, module in model.named_modules()}
    used: dict[str, int] = {}
    for node in owner.graph.nodes:
        for call in module_calls(node):
            used[call.path] = max(used.get(call.path, 0), call.call + 1)
    _place(owner, paths, used)


def _place(
    owner: torch.fx.GraphModule, paths: dict[str, str], used: dict[str, int]
) -> None:
    for node, inner in inner_graphs(owner):
        around = dict(node.meta.get("nn_module_stack") or {})
        inside = {call.path for call in calls_in(around)}
        numbers: dict[str, int] = {}
        for step in inner.graph.nodes:
            stack = dict(around)
            for key, (_, cls) in (step.meta.get("nn_module_stack") or {}).items():
                path = paths.get(str(key).partition("@")[0])
                if path is None or path in inside:
                    continue
                if key not in numbers:
                    numbers[key] = used.get(path, 0)
                    used[path] = numbers[key] + 1
                call = f"{path}@{numbers[key]}" if numbers[key] else path
                stack[call] = (path, cls)
            step.meta["nn_module_stack"] = stack
        _place(inner, paths, used)


def inner_graphs(
    owner: torch.fx.GraphModule,
) -> Iterator[tuple[torch.fx.Node, torch.fx.GraphModule]]:
    """Each call of a graph that takes inner graphs, with each of these."""
    for node in owner.graph.nodes:
        for arg in node.all_input_nodes if node.op == "call_function" else ():
            if arg.op == "get_attr" and "." not in str(arg.target):
                graph = getattr(owner, str(arg.target))
                if isinstance(graph, torch.fx.GraphModule):
                    yield node, graph
