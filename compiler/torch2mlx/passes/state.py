"""What the user should know of a forward that writes to buffers or to its inputs."""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, call, tensor_of

aten = torch.ops.aten

SHOWN = 4
BATCH_NORMS = {
    aten.batch_norm.default,
    aten._batch_norm_with_update.default,
    aten._native_batch_norm_legit.default,
}


def note_state(captured: Captured) -> None:
    """Add a note for the buffers, and one for the inputs, that a graph writes to."""
    arguments = {item.name: item.argument for item in captured.inputs}
    buffers = [captured.weights.get(name, "") for name in captured.state]
    inputs = [arguments.get(name, "") for name in captured.state]
    if any(buffers):
        captured.notes.append(
            f"forward updates {_list(buffers)}: each call changes the module; "
            "under mx.compile pass `model.state` as its inputs and outputs"
        )
    if any(inputs):
        captured.notes.append(
            f"forward writes to its input {_list(inputs)}: as in PyTorch, the caller's array changes; "
            "not under mx.compile"
        )


def updates_statistics(node: torch.fx.Node) -> bool:
    """Whether a batch norm normalises by the batch, and so updates its running statistics."""
    return node.target in BATCH_NORMS and bool(arguments(node).get("training", True))


def statistics(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The mean and the unbiased variance of a batch norm's channels, in the dtype of the running ones."""
    x, own = node.args[0], tensor_of(node.args[3])
    value = tensor_of(x)
    assert value is not None
    axes = [0, *range(2, value.ndim)]
    found = [
        call(node, aten.mean.dim, x, axes),
        call(node, aten.var.correction, x, axes, correction=1),
    ]
    if own is None or own.dtype == value.dtype:
        return found
    return [call(node, aten.to.dtype, value, own.dtype) for value in found]


def _list(names: list[str]) -> str:
    known = [f"`{name}`" for name in dict.fromkeys(names) if name]
    more = len(known) - SHOWN
    return ", ".join(known[:SHOWN]) + (f" and {more} more" if more > 0 else "")
