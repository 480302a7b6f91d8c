"""How passes change a captured graph: every new call says where it comes from and what it yields."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.passes.overloads import as_written

ORIGIN = ("nn_module_stack", "stack_trace", "torch_fn")


def call(
    here: torch.fx.Node,
    target: Any,
    *args: Any,
    origin: Any = None,
    result: Any = None,
    **kwargs: Any,
) -> torch.fx.Node:
    """A new call right before `here`; its value is inferred unless it is given.

    Args:
        here: Where it goes.
        target: The ATen overload.
        *args: Its arguments.
        origin: The node whose module call and source line it has, `here` unless given.
        result: The fake value that it yields.
        **kwargs: Its keyword arguments.
    """
    with here.graph.inserting_before(here):
        new = here.graph.call_function(target, args, kwargs)
    meta = (here if origin is None else origin).meta
    new.meta.update({key: meta[key] for key in ORIGIN if key in meta})
    if "region" in here.meta:
        new.meta["region"] = here.meta["region"]
    new.meta["val"] = infer(new) if result is None else result
    return new


def infer(node: torch.fx.Node) -> Any:
    """The fake value of a call, from those of its arguments."""
    args, kwargs = values(node.args), values(node.kwargs)
    with fake_mode(node.graph), enable_python_dispatcher(), torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def values(arguments: Any) -> Any:
    """Arguments with the fake value of each node in its place."""
    return map_arg(arguments, lambda node: node.meta["val"])


def fake_mode(graph: torch.fx.Graph) -> FakeTensorMode:
    """The mode that all fake values of a graph belong to; a new one where it has none."""
    for node in graph.nodes:
        if isinstance(node.meta.get("val"), FakeTensor):
            return node.meta["val"].fake_mode
    return FakeTensorMode()


def replace(node: torch.fx.Node, new: torch.fx.Node) -> None:
    """Let `new` stand wherever `node` stood, and erase `node`."""
    old_value, new_value = node.meta.get("val"), new.meta.get("val")
    if isinstance(old_value, torch.Tensor):
        assert isinstance(new_value, torch.Tensor)
        assert (old_value.dtype, old_value.ndim) == (new_value.dtype, new_value.ndim)
    name_as(new, node)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def name_as(new: torch.fx.Node, node: torch.fx.Node) -> None:
    """Let `new` be known by the arguments of `forward` as which modules received `node`."""
    if names := node.meta.get("forward_args"):
        known = new.meta.get("forward_args", [])
        new.meta["forward_args"] = [
            *known,
            *(name for name in names if name not in known),
        ]


def arguments(node: torch.fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by the schema's names, defaults included."""
    assert isinstance(node.target, OpOverload)
    schema = node.target._schema.arguments
    given = dict(zip((a.name for a in schema), node.args, strict=False)) | node.kwargs
    return {a.name: given.get(a.name, a.default_value) for a in schema}


def with_arguments(node: torch.fx.Node, **changes: Any) -> torch.fx.Node:
    """A call like `node`, right before it, with some arguments changed."""
    assert isinstance(node.target, OpOverload)
    given = list((arguments(node) | changes).values())
    args, kwargs = as_written(node.target, given)
    return call(node, node.target, *args, **kwargs)


def tensor_of(node: Any) -> torch.Tensor | None:
    """The fake tensor that a node yields, if it is a node and yields one tensor."""
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def same_shape(captured: Captured, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two fake tensors have the same shape for every input that the capture allows."""
    return a.ndim == b.ndim and all(
        x is y or captured.expr(x) == captured.expr(y)
        for x, y in zip(a.shape, b.shape, strict=True)
    )


def keeps_shape(node: torch.fx.Node, operand: torch.fx.Node) -> bool:
    """Whether a call's result has the shape of an operand, for all sizes.

    To ask `a.shape == b.shape` instead would fix a size that varies at the example's.
    """
    a, b = tensor_of(node), tensor_of(operand)
    if a is None or b is None or a.ndim != b.ndim:
        return False
    return all(
        statically_known_true(x == y) for x, y in zip(a.shape, b.shape, strict=True)
    )
