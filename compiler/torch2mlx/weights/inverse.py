"""The way back: the arrays of the source checkpoint, from those of the generated module.

Nothing is recomputed but sums: their parts are taken from `parts` as long as they still give the sum;
else the first part is the sum and the others are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.weights.plan import ADDING, Shape, WeightEntry, WeightPlan, apply

Array = NDArray[Any]


class Inverse(Mapping[str, Array]):
    """The source checkpoint as a mapping from keys to arrays, each made when it is asked for.

    Args:
        plan: How the arrays were made.
        arrays: The arrays of the generated module, of any dtype: they may have been trained.
        parts: What `plan` adds up, by source key, where that is known.

    Raises:
        InputError: `arrays` are not those of the plan.
    """

    def __init__(
        self,
        plan: WeightPlan,
        arrays: Mapping[str, Array],
        parts: Mapping[str, Array] | None = None,
    ):
        _check_keys(plan, arrays)
        computed = [entry.key for entry in plan.entries if entry.expression]
        if computed:
            raise InputError(
                f"it holds what was computed from PyTorch's weights, {named(computed)}, but not these, "
                "so that they cannot be restored: compile it without --fold-bn"
            )
        self._plan = plan
        self._arrays = arrays
        self._parts = parts or {}
        self._users: dict[str, list[WeightEntry]] = {}
        for entry in plan.entries:
            for source in entry.sources:
                self._users.setdefault(source, []).append(entry)
        stored = self._users.keys() - set(plan.constants)
        self._keys = sorted(stored | plan.aliases.keys())
        self._shapes = {key: shape for key, (_, shape) in plan.sources().items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def owner(self, key: str) -> str:
        """The key that holds the array of a key: another one where weights are tied."""
        return self._plan.aliases.get(key, key)

    def made_from(self, key: str) -> str:
        """A key of the generated module whose dtype the array has."""
        return self._users[self.owner(key)][0].key

    def shape(self, key: str) -> Shape:
        """The shape of an array."""
        return self._shapes[self.owner(key)]

    def __getitem__(self, key: str) -> Array:
        source = self.owner(key)
        users = self._users[source]
        if any(entry.merge in ADDING for entry in users):
            known = self._known_part(source, users)
            if known is not None:
                return known
        if any(_divides(entry) for entry in users):
            return self._gathered(source, users)
        first, *others = (self._part(entry, source) for entry in users)
        for entry, other in zip(users[1:], others, strict=True):
            if not _same_bits(first, other):
                text = f"{users[0].key!r} and {entry.key!r} differ"
                raise InputError(f"{text}, but both are {source!r} in PyTorch")
        return first

    def _array(self, entry: WeightEntry) -> Array:
        array = self._arrays[entry.key]
        if array.shape != entry.out_shape:
            text = f"{array.shape}, expected {entry.out_shape}"
            raise InputError(f"weight {entry.key!r} has the shape {text}")
        return array

    def _part(self, entry: WeightEntry, source: str) -> Array:
        """One of the arrays that an entry without slices was made of."""
        array = _unstepped(entry, self._array(entry))
        index, axis = entry.sources.index(source), entry.axis
        match entry.merge:
            case "concat":
                start = sum(shape[axis] for shape in entry.shapes[:index])
                stop = start + entry.shapes[index][axis]
                return array[(slice(None),) * axis + (slice(start, stop),)]
            case "stack":
                place, index = divmod(index, entry.group)
                array = array[(slice(None),) * axis + (place,)]
                if entry.group == 1:
                    return array
                group = entry.shapes[place * entry.group :]
                start = sum(shape[0] for shape in group[:index])
                return array[start : start + group[index][0]]
            case "sum":
                return array if index == 0 else np.zeros_like(array)
            case _:
                return array

    def _known_part(self, source: str, users: list[WeightEntry]) -> Array | None:
        """The array of `parts`, if all that was made of it is still what it gives."""
        needed = {other for entry in users for other in entry.sources}
        if not self._parts.keys() >= needed:
            return None
        for entry in users:
            if not _same_bits(apply(entry, self._parts), self._array(entry)):
                return None
        return self._parts[source]

    def _gathered(self, source: str, users: list[WeightEntry]) -> Array:
        """An array that is divided among several entries."""
        shape = self._shapes[source]
        result = np.zeros(shape, self._array(users[0]).dtype)
        if source in self._parts and self._parts[source].dtype == result.dtype:
            result[...] = self._parts[source]
        elif not _covered(source, shape, users).all():
            raise InputError(
                f"weight {source!r} cannot be restored: the model holds only a part of it"
            )
        for entry in users:
            if entry.merge in ADDING and entry.sources.index(source) > 0:
                result[_added(entry)] = 0  # the first array has the whole sum
                continue
            region, rest = _region(entry)
            if rest is not None:
                result[region] = _unstepped(rest, self._array(entry))
            else:
                index = _where_from(entry, source)
                taken = index >= 0
                result.reshape(-1)[index[taken]] = self._array(entry)[taken]
        return result


def lossy_sources(plan: WeightPlan) -> list[str]:
    """The source keys that cannot be had back from the arrays of the generated module alone."""
    users: dict[str, list[WeightEntry]] = {}
    for entry in plan.entries:
        for source in entry.sources:
            users.setdefault(source, []).append(entry)
    found: set[str] = set()
    for source, (_, shape) in plan.sources().items():
        entries = users[source]
        if any(entry.expression for entry in entries):
            continue
        found.update(
            s for entry in entries if entry.merge in ADDING for s in entry.sources
        )
        if any(map(_divides, entries)) and not _covered(source, shape, entries).all():
            found.add(source)
    return sorted(found - set(plan.constants))


def _covered(source: str, shape: Shape, users: list[WeightEntry]) -> Array:
    """Which elements of a source the entries hold."""
    covered = np.zeros(shape, bool)
    for entry in users:
        region, rest = _region(entry)
        if entry.merge in ADDING and entry.sources.index(source) > 0:
            covered[_added(entry)] = True
        elif rest is not None:
            covered[region] = True
        else:
            index = _where_from(entry, source)
            covered.reshape(-1)[index[index >= 0]] = True
    return covered


def _added(entry: WeightEntry) -> slice:
    """What is added of the second of two arrays."""
    whole = entry.merge == "sum"
    return slice(None) if whole else slice(entry.shapes[0][0] // 3 * 2)


def _region(entry: WeightEntry) -> tuple[tuple[slice, ...], WeightEntry | None]:
    """What an entry cuts out of its only source, and what it does then; None if it is not that easy."""
    if len(entry.sources) > 1 and entry.merge not in ADDING:
        return (), None
    shape = entry.shapes[0]
    region = tuple(slice(0, size) for size in shape)
    steps = entry.steps
    if steps and steps[0][0] == "slice":
        _, axis, start, stop = steps[0]
        cut = slice(start, stop)
        region = (*region[:axis], cut, *region[axis + 1 :])
        shape = (*shape[:axis], stop - start, *shape[axis + 1 :])
        steps = steps[1:]
    if any(step[0] == "slice" for step in steps):
        return (), None
    return region, WeightEntry(
        entry.key, entry.sources[:1], entry.dtype, (shape,), steps
    )


def _check_keys(plan: WeightPlan, arrays: Mapping[str, Array]) -> None:
    wanted = {entry.key for entry in plan.entries}
    for what, keys in (
        ("lacks", wanted - arrays.keys()),
        ("holds, unknown to its plan,", arrays.keys() - wanted),
    ):
        if keys:
            raise InputError(f"the folder {what} the weights {named(sorted(keys))}")


def named(keys: list[str]) -> str:
    """The first of some keys, for a message."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(map(repr, keys[:5])) + more


def _divides(entry: WeightEntry) -> bool:
    return entry.merge == "gru_bias" or any(step[0] == "slice" for step in entry.steps)


def _unstepped(entry: WeightEntry, array: Array) -> Array:
    """The merged array that the steps were done to."""
    counts = range(len(entry.steps))
    shapes = [
        replace(entry, steps=entry.steps[:n], target=None).out_shape for n in counts
    ]
    for step, before in zip(reversed(entry.steps), reversed(shapes), strict=True):
        if step[0] == "transpose":
            array = array.transpose(np.argsort(step[1]))
        else:
            array = array.reshape(before)
    return array


def _where_from(entry: WeightEntry, source: str) -> Array:
    """For each element of the result, its place in `source`, or -1."""
    numbered = {
        key: (
            np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
            if key == source
            else np.full(shape, -1, np.int64)
        )
        for key, shape in zip(entry.sources, entry.shapes, strict=True)
    }
    plain = replace(entry, dtype="I64", target=None)
    return apply(plain, numbered)


def _same_bits(first: Array, second: Array) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    kind = np.dtype(f"u{min(first.itemsize, 8)}")
    return np.array_equal(
        np.ascontiguousarray(first).view(kind), np.ascontiguousarray(second).view(kind)
    )
