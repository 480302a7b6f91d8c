"""What code does to tensors, noted while it runs on tensors without values: how it arranges them anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torch2mlx.weights.plan import Shape, Step, WeightEntry

aten = torch.ops.aten
Tensor = torch.Tensor

SAME = {
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.lift_fresh.default,
}
RESHAPES = {
    aten._reshape_alias.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.view.default,
}
DIVISIONS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
}


class Rearranging(TorchDispatchMode):
    """Knows how each tensor is made of sources, as an entry of a weight plan without a key."""

    def __init__(self) -> None:
        super().__init__()
        # The tensor goes along: what is freed leaves its number to another one
        self._known: dict[int, tuple[Tensor, WeightEntry]] = {}

    def source(self, key: str, dtype: str, shape: Shape) -> Tensor:
        """A tensor without values for a source.

        Args:
            key: Its name.
            dtype: The safetensors name of its dtype.
            shape: Its shape.
        """
        tensor = torch.empty(shape, device="meta")
        self._note(tensor, WeightEntry("", (key,), dtype, (shape,)))
        return tensor

    def made(self, tensor: Any) -> WeightEntry | None:
        """How a tensor is made; None where that takes more than to merge, cut and move."""
        found = self._known.get(id(tensor))
        return None if found is None else found[1]

    def _note(self, tensor: Tensor, entry: WeightEntry | None) -> None:
        if entry is not None and entry.out_shape == tuple(tensor.shape):
            self._known[id(tensor)] = tensor, entry

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MERGES:
            parts = [self.made(tensor) for tensor in args[0]]
            axis = args[1] % result.ndim if len(args) > 1 else 0
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                self._note(result, MERGES[func](known, axis))
        elif args and (entry := self.made(args[0])) is not None:
            if func in DIVISIONS:
                at = 1 if func is aten.unbind.int else 2
                self._divided(entry, result, args[at] if len(args) > at else 0)
            elif (steps := _steps(func, args, result)) is not None:
                self._note(result, _then(entry, *steps))
        return result

    def _divided(self, entry: WeightEntry, parts: Sequence[Tensor], axis: int) -> None:
        axis, start = axis % len(entry.out_shape), 0
        for part in parts:
            is_lower = part.ndim < len(entry.out_shape)
            stop = start + (1 if is_lower else part.shape[axis])
            reshape = [("reshape", tuple(part.shape))] if is_lower else []
            self._note(part, _then(entry, ("slice", axis, start, stop), *reshape))
            start = stop


def _then(entry: WeightEntry, *steps: Step) -> WeightEntry | None:
    return replace(entry, steps=(*entry.steps, *steps))


def _steps(func: Any, args: tuple[Any, ...], result: Any) -> list[Step] | None:
    if not isinstance(result, Tensor):
        return None
    before, shape = args[0], tuple(result.shape)
    axes = list(range(before.ndim))
    if func in SAME:
        return []
    if func in RESHAPES:
        return [("reshape", shape)]
    if func is aten.t.default:
        return [("transpose", (*reversed(axes),))]
    if func is aten.permute.default:
        return [("transpose", tuple(axis % before.ndim for axis in args[1]))]
    if func is aten.transpose.int:
        first, second = (axis % before.ndim for axis in args[1:])
        axes[first], axes[second] = second, first
        return [("transpose", tuple(axes))]
    if func is aten.select.int:
        axis, index = args[1] % before.ndim, args[2]
        start = index % before.shape[axis]
        return [("slice", axis, start, start + 1), ("reshape", shape)]
    if func is aten.slice.Tensor:
        axis, start, stop, step = (*args[1:], *(0, None, None, 1)[len(args) - 1 :])
        found = range(before.shape[axis])[slice(start, stop, step)]
        if step == 1:
            return [("slice", axis % before.ndim, found.start, found.stop)]
    return None


def _stacked(parts: list[WeightEntry], axis: int) -> WeightEntry | None:
    return _merged(parts, "stack", axis)


def _concatenated(parts: list[WeightEntry], axis: int) -> WeightEntry | None:
    if len(parts) == 1:
        return parts[0]
    if not all(part.merge == "stack" and not part.axis for part in parts):
        return _merged(parts, "concat", axis)
    # Stacks side by side are a stack of arrays that are concatenated
    lengths = {len(part.sources) for part in parts}
    if axis != 1 or len(lengths) > 1 or any(p.steps or p.group > 1 for p in parts):
        return None
    indices = range(lengths.pop())
    return replace(
        parts[0],
        sources=tuple(part.sources[i] for i in indices for part in parts),
        shapes=tuple(part.shapes[i] for i in indices for part in parts),
        group=len(parts),
    )


def _merged(parts: list[WeightEntry], merge: str, axis: int) -> WeightEntry | None:
    if any(part.steps or part.merge for part in parts):
        return None
    if len({part.dtype for part in parts}) > 1:
        return None
    return replace(
        parts[0],
        sources=tuple(part.sources[0] for part in parts),
        shapes=tuple(part.shapes[0] for part in parts),
        merge=merge,
        axis=axis,
    )


MERGES: dict[Any, Callable[[list[WeightEntry], int], WeightEntry | None]] = {
    aten.stack.default: _stacked,
    aten.cat.default: _concatenated,
}
