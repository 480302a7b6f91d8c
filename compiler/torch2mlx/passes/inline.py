"""Inline the sub-graphs of `torch.autocast`, `torch.no_grad` and `torch.enable_grad` regions.

    y = wrap_with_autocast("cpu", bfloat16, True, False, submod_1, x)   ->   t = to(x, bfloat16)
    z = y[0]                        # submod_1: matmul(x, w)                 z = matmul(t, to(w, bfloat16))

Autocast casts operands when a kernel runs, so the sub-graph does not show it; the dtypes that were
recorded do.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import unsupported
from torch2mlx.passes.rewrite import call, infer, replace, tensor_of

AUTOCAST = torch.ops.higher_order.wrap_with_autocast
SET_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
# Region -> position of its sub-graph among the arguments; the operands follow.
REGIONS: dict[Any, int] = {AUTOCAST: 4, SET_GRAD: 1}


def inline(captured: Captured) -> bool:
    """Put the sub-graphs of autocast and gradient regions in the place of their calls.

    Raises:
        UnsupportedError: An operator under autocast has a dtype that casting its operands cannot give.
    """
    regions = [n for n in captured.graph.nodes if n.target in REGIONS]
    for node in regions:
        _inline(captured, node)
    modes = [n for n in captured.graph.nodes if n.target is torch._C._set_grad_enabled]
    for node in modes:
        captured.graph.erase_node(node)
    return bool(regions or modes)


def _inline(captured: Captured, node: torch.fx.Node) -> None:
    place = REGIONS[node.target]
    attribute, operands = node.args[place], node.args[place + 1 :]
    assert isinstance(attribute, torch.fx.Node)
    owner = captured.graph.owning_module
    assert owner is not None
    region = owner.get_submodule(str(attribute.target))
    outputs = _copied(node, region, operands)
    for user in list(node.users):
        assert user.target is operator.getitem
        replace(user, outputs[user.args[1]])  # type: ignore[index]
    captured.graph.erase_node(node)
    if not attribute.users:
        captured.graph.erase_node(attribute)


def _copied(node: torch.fx.Node, region: Any, operands: Any) -> list[torch.fx.Node]:
    """The results of the region's graph, copied to where `node` stands."""
    graph = node.graph
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    given = iter(operands)
    for inner in region.graph.nodes:
        if inner.op == "placeholder":
            copies[inner] = next(given)
        elif inner.op == "output":
            return [copies[value] for value in inner.args[0]]
        elif inner.target in REGIONS:
            raise unsupported(inner, "autocast and gradient regions inside each other")
        elif inner.op != "get_attr":
            with graph.inserting_before(node):
                copies[inner] = graph.node_copy(inner, copies.__getitem__)
            _as_autocast(copies[inner])
    raise AssertionError("a graph ends with its output")


def _as_autocast(node: torch.fx.Node) -> None:
    """Cast the operands of a call so that it yields the dtype that was recorded."""
    recorded = tensor_of(node)
    if recorded is None or not recorded.is_floating_point() or _yields(node, recorded):
        return

    def cast(operand: torch.fx.Node) -> torch.fx.Node:
        value = tensor_of(operand)
        if value is None or not value.is_floating_point():
            return operand
        if value.dtype == recorded.dtype:
            return operand
        return call(node, torch.ops.aten.to.dtype, operand, recorded.dtype)

    node.args, node.kwargs = map_arg(node.args, cast), map_arg(node.kwargs, cast)
    if not _yields(node, recorded):
        raise unsupported(node, f"autocast makes it {recorded.dtype} in an unknown way")


def _yields(node: torch.fx.Node, recorded: torch.Tensor) -> bool:
    try:
        found = infer(node)
    except RuntimeError:  # operands of different dtypes
        return False
    return isinstance(found, torch.Tensor) and found.dtype == recorded.dtype
