"""`torch.vmap`, which torch.export leaves in the graph, as operators on whole arrays.

b = _add_batch_dim(x, 0, 1)
s = aten.sum.dim(b, [0])              ->     s = aten.sum.dim(x, [1])
y = _remove_batch_dim(s, 1, N, 0)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.fx
from torch._C._functorch import maybe_current_level  # type: ignore[import-not-found]
from torch._functorch import predispatch
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

Node = torch.fx.Node
OPENED = predispatch._vmap_increment_nesting
CLOSED = predispatch._vmap_decrement_nesting
LOADED = predispatch.lazy_load_decompositions


def expand_vmaps(owner: torch.fx.GraphModule) -> None:
    """Replace each outermost `torch.vmap` by what PyTorch's own batching rules make of it.

    Args:
        owner: The module of a graph, changed in place, and so are the graphs of its branches.
    """
    for module in owner.modules():
        if isinstance(module, torch.fx.GraphModule):
            for region in list(_regions(module.graph)):
                _expand(module, region)
            for node in module.graph.find_nodes(op="call_function", target=LOADED):
                module.graph.erase_node(node)


def _regions(graph: torch.fx.Graph) -> Iterator[list[Node]]:
    """The nodes of each vmap that is in no other."""
    region: list[Node] = []
    depth = 0
    for node in graph.nodes:
        depth += node.target is OPENED
        if depth:
            region.append(node)
        depth -= node.target is CLOSED
        if region and not depth:
            yield region
            region = []


def _expand(owner: torch.fx.GraphModule, region: list[Node]) -> None:
    graph, inside = owner.graph, set(region)
    operands = [n for node in region for n in node.all_input_nodes if n not in inside]
    operands = list(dict.fromkeys(operands))
    results = [node for node in region if not node.users.keys() <= inside]
    batched = torch.fx.Graph()
    # Functions and structures are no values: they are taken along
    attributes = [node for node in operands if node.op == "get_attr"]
    operands = [node for node in operands if node.op != "get_attr"]
    copies = {node: batched.placeholder(node.name) for node in operands}
    copies |= {node: batched.node_copy(node) for node in attributes}
    for node in region:
        copies[node] = batched.node_copy(node, copies.__getitem__)
    batched.output([copies[node] for node in results])
    values = [node.meta["val"] for node in operands]
    expanded = _traced(torch.fx.GraphModule(owner, batched), values)
    placeholders = expanded.find_nodes(op="placeholder")
    with graph.inserting_before(region[0]):
        found: Any = graph.graph_copy(
            expanded, dict(zip(placeholders, operands, strict=True))
        )
    for node, value in zip(results, found, strict=True):
        node.replace_all_uses_with(value)
    for node in reversed(region):
        graph.erase_node(node)


def _traced(batched: torch.fx.GraphModule, values: list[Any]) -> torch.fx.Graph:
    """The operators below functorch that running a graph calls."""
    mode = detect_fake_mode(values)
    assert mode is not None
    try:
        with mode, preserve_node_meta(), torch.no_grad():
            return make_fx(torch.fx.Interpreter(batched).run)(*values).graph
    finally:
        while maybe_current_level():
            CLOSED()
