"""Buffers that forward assigns, `self.count = self.count + 1`, in whatever module.

torch.export notes such assignments in the outermost module only, and writes them as copies into the old
tensor, which others may still hold. Here each becomes a call of `rebind` at the end of the graph.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx
from torch.nn.modules.module import register_module_buffer_registration_hook

from torch2mlx.capture.provenance import module_calls, traced
from torch2mlx.errors import CaptureError

COPY = torch.ops.aten.copy_.default


def rebind(buffer: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The value that the attribute which held `buffer` holds afterwards."""
    return value


@contextlib.contextmanager
def recording_assignments(model: torch.nn.Module) -> Iterator[None]:
    """While `model` is traced, note in the `meta` of each value to which buffers it is assigned."""
    paths = {id(module): path for path, module in model.named_modules()}
    numbers = itertools.count()

    def note(module: torch.nn.Module, name: str, value: Any) -> None:
        node = traced(value)
        if node is not None and id(module) in paths:
            path = paths[id(module)]
            key = f"{path}.{name}" if path else name
            node.meta.setdefault("assigned", []).append((next(numbers), key))

    hook = register_module_buffer_registration_hook(note)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()


def add_assignments(graph: torch.fx.Graph, weights: dict[str, str]) -> None:
    """Let a captured graph end with the assignments that were noted.

    Args:
        graph: Changed in place.
        weights: Placeholder name -> state dict key.

    Raises:
        CaptureError: A buffer gets another shape or dtype.
    """
    found: dict[str, tuple[int, torch.fx.Node]] = {}
    for node in graph.nodes:
        for number, key in node.meta.get("assigned", ()):
            if number > found.get(key, (-1, node))[0]:  # a copy shares its value's meta
                found[key] = (number, node)
    buffers = {weights.get(n.name): n for n in graph.nodes if n.op == "placeholder"}
    output = graph.output_node()
    for key, (_, value) in found.items():
        buffer = buffers.get(key)
        if buffer is None or buffer is value:
            continue
        for user in list(buffer.users):
            if user.target is COPY and user.args == (buffer, value) and not user.users:
                graph.erase_node(user)
        old, new = buffer.meta["val"], value.meta["val"]
        if old.dtype != new.dtype or list(old.shape) != list(new.shape):
            if not buffer.users and _is_constant(value, weights):
                continue  # a table that is made when it is first needed
            raise CaptureError(
                f"forward assigns to the buffer `{key}` an array of another shape or dtype: "
                f"{new.dtype} {list(new.shape)} instead of {old.dtype} {list(old.shape)}"
            )
        with graph.inserting_before(output):
            call = graph.call_function(rebind, (buffer, value))
        call.meta.update(val=new, nn_module_stack=_stack(graph, key, value))


def _is_constant(value: torch.fx.Node, weights: dict[str, str]) -> bool:
    """Whether a value depends on no element of an input; on their sizes it may."""
    seen = dict.fromkeys([value])
    for node in (queue := list(seen)):
        if node.op == "placeholder" and node.name not in weights:
            return False
        if isinstance(node.meta.get("val"), torch.Tensor):
            new = [n for n in node.all_input_nodes if n not in seen]
            seen.update(dict.fromkeys(new))
            queue.extend(new)
    return True


def _stack(graph: torch.fx.Graph, key: str, value: torch.fx.Node) -> Any:
    """The module stack of the code that assigns to a buffer, which is its owner's."""
    owner = key.rpartition(".")[0]
    for node in graph.nodes:
        calls = module_calls(node)
        if calls and calls[-1].path == owner:
            return node.meta["nn_module_stack"]
    return value.meta.get("nn_module_stack") or {}
