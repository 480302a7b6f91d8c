"""Find the deepest module call whose inputs agree and whose outputs differ.

Both models run once while the first call of every module is recorded; then the search goes from the
model down, at each level to the first module that makes a difference.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn
import torch
from torch.utils._pytree import tree_leaves

from torch2mlx.outline.scopes import below
from torch2mlx.verify.compare import Tolerance, deviation
from torch2mlx.verify.generated import Generated, instance


@dataclass
class Calls:
    """The first call of every module, by PyTorch's path, in the order in which they end.

    Attributes:
        inputs: The arrays that it takes.
        outputs: The arrays that it returns; missing where it raised.
        raised: Path of the innermost module that raised, None if none did.
    """

    inputs: dict[str, list[Any]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    raised: str | None = None


@contextlib.contextmanager
def recording_torch(model: torch.nn.Module) -> Iterator[Calls]:
    """Record the module calls of a PyTorch model; arrays are copied, since modules may write to them."""
    calls = Calls()
    handles: list[Any] = []
    try:
        for path, module in model.named_modules():
            before = functools.partial(_note_inputs, calls, path)
            after = functools.partial(_note_outputs, calls, path)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _note_inputs(calls: Calls, path: str, module: Any, args: Any, kwargs: Any) -> None:
    if path not in calls.inputs:
        calls.inputs[path] = _tensors((args, kwargs))


def _note_outputs(calls: Calls, path: str, module: Any, args: Any, output: Any) -> None:
    if path not in calls.outputs:
        calls.outputs[path] = _tensors(output)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [
        t.detach().clone() for t in tree_leaves(value) if isinstance(t, torch.Tensor)
    ]


def record_mlx(model: mlx.nn.Module, modules: dict[str, Generated]) -> Calls:
    """Let a generated model record its module calls from now on.

    Each module gets a class of its own: Python looks `__call__` up on the type.
    """
    calls = Calls()
    seen: set[int] = set()
    for path, generated in modules.items():
        found = instance(model, generated.key)
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__class__ = _recording_class(type(found), calls, path)
    return calls


def _recording_class(cls: type, calls: Calls, path: str) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        first = path not in calls.inputs
        if first:
            calls.inputs[path] = _arrays((args, kwargs))
        try:
            result = cls.__call__(self, *args, **kwargs)
        except Exception:
            calls.raised = path if calls.raised is None else calls.raised
            raise
        if first:
            calls.outputs[path] = _arrays(result)
        return result

    return type(cls.__name__, (cls,), {"__call__": call})


def _arrays(value: Any) -> list[mx.array]:
    # A copy: the generated code may assign to slices of an array
    return [mx.array(a) for a in tree_leaves(value) if isinstance(a, mx.array)]


def deepest_difference(
    want: Calls, got: Calls, tolerance: Tolerance
) -> tuple[str, float | None]:
    """The path of the module that makes the first difference, and how large it is there."""
    paths = [path for path in want.outputs if path in got.outputs]
    where = ""
    while True:
        for path in _children(paths, where):
            if deviation(want.inputs[path], got.inputs[path], tolerance) is not None:
                continue
            if deviation(want.outputs[path], got.outputs[path], tolerance) is not None:
                where = path
                break
        else:
            found = deviation(
                want.outputs.get(where, []), got.outputs.get(where, []), tolerance
            )
            return where, found


def _children(paths: Sequence[str], where: str) -> list[str]:
    """The modules below `where` that are below no other one, in order."""
    inside = [path for path in paths if path != where and below(path, where)]
    known = set(inside)
    return [path for path in inside if not any(p in known for p in _parents(path))]


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
