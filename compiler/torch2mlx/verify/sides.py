"""The two sides of a comparison: call the PyTorch model and the generated one on the same tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from torch2mlx.arrays import from_numpy
from torch2mlx.capture import Captured
from torch2mlx.emit.interface import interface
from torch2mlx.emit.weights import as_array

if TYPE_CHECKING:
    from torch2mlx.api import Program


def run_torch(
    model: torch.nn.Module,
    captured: Captured,
    tensors: Sequence[torch.Tensor],
    seed: int = 0,
) -> Any:
    """What PyTorch returns when the example arguments have `tensors` in place of theirs."""
    leaves, spec = tree_flatten(captured.example)
    fresh = (tensor.detach().clone() for tensor in tensors)
    leaves = [
        next(fresh) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves
    ]
    args, kwargs = tree_unflatten(leaves, spec)
    torch.manual_seed(seed)
    return model(*args, **kwargs)


def run_mlx(
    module: mlx.nn.Module, program: Program, tensors: Sequence[torch.Tensor]
) -> Any:
    """What the generated module returns for the same tensors, computed."""
    result = module(*mlx_arguments(program, tensors))
    mx.eval(result)
    return result


def mlx_arguments(program: Program, tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The arguments of the generated `__call__`, nested as it reads them."""
    model = program.outlined.model
    items = {item.name: item for item in program.captured.inputs}
    face = interface(model, program.captured)
    arguments: dict[str, Any] = dict.fromkeys(face.parameters)
    arrays = mlx_inputs(program, tensors)
    for name, node, array in zip(face.names, model.inputs, arrays, strict=True):
        arguments[name] = _put(arguments[name], items[str(node.target)].path, array)
    return [_with_lists(value) for value in arguments.values()]


def mlx_inputs(program: Program, tensors: Sequence[torch.Tensor]) -> list[mx.array]:
    """The inputs of the lowered graph in its order, stored as it wants them."""
    given = {i.name: t for i, t in zip(program.captured.inputs, tensors, strict=True)}
    arrays = []
    for node in program.outlined.model.inputs:
        tensor, perm = given[str(node.target)], node.meta.get("perm")
        arrays.append(to_mlx(tensor.permute(perm) if perm else tensor))
    return arrays


def to_mlx(tensor: torch.Tensor) -> mx.array:
    """A tensor as an MLX array of the same dtype; float64 as float32."""
    array = as_array("input", tensor)
    return from_numpy(array, bfloat16=tensor.dtype == torch.bfloat16)


def _put(container: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    container = {} if container is None else container
    container[path[0]] = _put(container.get(path[0]), path[1:], value)
    return container


def _with_lists(value: Any) -> Any:
    """Dicts whose keys are 0, 1, 2, ... as lists."""
    if not isinstance(value, dict):
        return value
    items = {key: _with_lists(item) for key, item in value.items()}
    return list(items.values()) if list(items) == list(range(len(items))) else items
