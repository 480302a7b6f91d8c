"""Output heads that share the embedding's table: `x @ embed.weight.T` is `embed.as_linear(x)`."""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import mlx.nn
import torch.fx

from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Weight


def tie_heads(graph: torch.fx.Graph) -> None:
    """Write products with the transposed table of an embedding layer as calls of that layer."""
    tables = {
        node.meta["layer"].weights["weight"]
        for node in graph.nodes
        if node.op == "call_module" and node.meta["layer"].cls is mlx.nn.Embedding
    }
    for node in graph.nodes:
        weight = _transposed(node.args[1]) if _is_product(node) else None
        if weight is not None and weight.meta["weight"] in tables:
            transposed = node.args[1]
            node.target = intrinsics.as_linear
            node.args = (node.args[0], weight)
            if not transposed.users:
                graph.erase_node(transposed)


def _is_product(node: torch.fx.Node) -> bool:
    return node.target in (operator.matmul, mx.matmul) and len(node.args) == 2


def _transposed(node: Any) -> torch.fx.Node | None:
    """The weight that `node` transposes."""
    if not isinstance(node, torch.fx.Node) or node.target is not mx.transpose:
        return None
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    is_weight = source.op == "get_attr" and isinstance(source.meta["weight"], Weight)
    return source if is_weight and len(node.args) == 1 else None
