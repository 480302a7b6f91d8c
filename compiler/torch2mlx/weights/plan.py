"""The weight plan: for every array of the generated module, which source arrays it is made of and how.

    key         sources              merge   steps
    conv.weight ("conv.weight",)     None    (("transpose", (0, 2, 3, 1)),)
    lstm.bias   ("b_ih", "b_hh")     "sum"   ()

The plan is data: sources are merged first, then the steps are taken in order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any
from typing import cast as assume

import numpy as np
from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.weights.casting import FLOATS, cast, narrow, widen
from torch2mlx.weights.expression import Expression, evaluate, shape_of
from torch2mlx.weights.safetensors import DTYPES, carried_shape, carrier

Array = NDArray[Any]
Shape = tuple[int, ...]
# ("transpose", perm), ("reshape", shape) or ("slice", axis, start, stop)
Step = tuple[Any, ...]


# Merges that compute: what went into them cannot be read off the result
ADDING = ("sum", "gru_bias")


@dataclass(frozen=True)
class WeightEntry:
    """How one array of the generated module is made.

    Attributes:
        key: Parameter path in the generated module.
        sources: Keys of the source checkpoint: one, or those that `merge` combines.
        dtype: Safetensors name of the dtype of the sources, e.g. `BF16`.
        shapes: Shape of each source.
        steps: Done to the (merged) array in order: `("transpose", perm)`,
            `("reshape", shape)` or `("slice", axis, start, stop)`.
        merge: None, `"sum"`, `"concat"`, `"stack"` or `"gru_bias"`: the second array is added to the
            first but for its last third.
        axis: The axis of `"concat"` and `"stack"`.
        group: How many sources are one array of `"stack"`: they are concatenated along their first axis.
        target: The dtype of the result, where that is another one.
        expression: What is computed of the sources instead of a merge; see `torch2mlx.weights.expression`.
        dtypes: Of each source of an expression; `dtype` is that of the result then.

    Raises:
        ValueError: The sources, the merge and the steps do not fit each other.
    """

    key: str
    sources: tuple[str, ...]
    dtype: str
    shapes: tuple[Shape, ...]
    steps: tuple[Step, ...] = ()
    merge: str | None = None
    axis: int = 0
    group: int = 1
    target: str | None = None
    expression: Expression = ()
    dtypes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            _ = self.out_shape
        except ValueError as error:
            raise ValueError(f"weight {self.key!r}: {error}") from None

    @cached_property
    def out_shape(self) -> Shape:
        """The shape of the result."""
        shape = _merged_shape(self)
        for step in self.steps:
            shape = _stepped_shape(step, shape)
        return shape

    @property
    def source_dtypes(self) -> tuple[str, ...]:
        """The dtype of each source."""
        return self.dtypes or (self.dtype,) * len(self.sources)

    @property
    def out_dtype(self) -> str:
        """The dtype of the result."""
        return self.target or self.dtype


@dataclass(frozen=True)
class WeightPlan:
    """What becomes of every array of the source checkpoint.

    Attributes:
        entries: The arrays of the generated module, in the order of the file.
        unused: Source keys that nothing needs, each with the reason.
        aliases: Source keys that are tied to another one, each with that one.
        constants: Used source keys that no checkpoint holds: the model computes them when it is built.

    Raises:
        ValueError: A key occurs twice, an alias leads nowhere, or a used source is listed as unused or as an alias.
    """

    entries: tuple[WeightEntry, ...]
    unused: Mapping[str, str] = field(default_factory=dict[str, str])
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    constants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self._by_key) < len(self.entries):
            keys = [entry.key for entry in self.entries]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ValueError(f"keys occur twice in the weight plan: {twice}")
        used = {source for entry in self.entries for source in entry.sources}
        for what, keys in (
            ("aliases", self.aliases.values()),
            ("constants", self.constants),
        ):
            if lost := sorted(set(keys) - used):
                raise ValueError(f"{what} of keys that are not in the plan: {lost}")
        if both := sorted((used | self.aliases.keys()) & self.unused.keys()):
            raise ValueError(f"both used and listed as unused: {both}")
        if both := sorted(used & self.aliases.keys()):
            raise ValueError(f"both used and listed as aliases: {both}")

    @cached_property
    def _by_key(self) -> dict[str, WeightEntry]:
        return {entry.key: entry for entry in self.entries}

    def __getitem__(self, key: str) -> WeightEntry:
        return self._by_key[key]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def tensors(self) -> list[tuple[str, str, Shape]]:
        """Key, dtype and shape of every array, as `safetensors.write` takes them."""
        return [(entry.key, entry.out_dtype, entry.out_shape) for entry in self.entries]

    def cast(self, dtype: str) -> WeightPlan:
        """The same plan, with all floating-point results in one dtype."""
        entries = (
            replace(entry, target=dtype) if entry.dtype in FLOATS else entry
            for entry in self.entries
        )
        return replace(self, entries=tuple(entries))

    def sources(self) -> dict[str, tuple[str, Shape]]:
        """Dtype and shape of each source key that is used."""
        return {
            source: (dtype, shape)
            for entry in self.entries
            for source, dtype, shape in zip(
                entry.sources, entry.source_dtypes, entry.shapes, strict=True
            )
        }

    def to_json(self) -> str:
        """The plan as JSON, one line per entry; the same plan gives the same text."""
        entries = ",\n".join(json.dumps(_fields(entry)) for entry in self.entries)
        unused, aliases = json.dumps(dict(self.unused)), json.dumps(dict(self.aliases))
        head = f'{{"unused": {unused},\n"aliases": {aliases},\n'
        if self.constants:
            head += f'"constants": {json.dumps(self.constants)},\n'
        return f'{head}"entries": [\n{entries}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> WeightPlan:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `text` is not a valid plan.
        """
        try:
            data = json.loads(text)
            entries = tuple(WeightEntry(**_tuples(item)) for item in data["entries"])
            constants = _tuples(data.get("constants", []))
            return cls(entries, data["unused"], data["aliases"], constants)
        except KeyError as error:
            raise InputError(f"not a weight plan: no {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"not a weight plan: {error}") from error


def apply(entry: WeightEntry, arrays: Mapping[str, Array]) -> Array:
    """Makes one array of the generated module.

    Args:
        entry: How to make it.
        arrays: The source checkpoint; dtypes that numpy lacks are carried as in `DTYPES`.

    Returns:
        The array, of shape `entry.out_shape`: a view of the source where that is possible, contiguous or not.

    Raises:
        InputError: A source is missing, or has not the dtype or the shape of the plan; or a value
            is too large for the dtype of the result.
    """
    sources = [
        _source(entry, arrays, key, dtype, shape)
        for key, dtype, shape in zip(
            entry.sources, entry.source_dtypes, entry.shapes, strict=True
        )
    ]
    array = _merge(entry, sources)
    for step in entry.steps:
        array = _take(step, array)
    dtype = "F64" if entry.expression else entry.dtype
    if entry.out_dtype == dtype:
        return array
    try:
        return cast(array, dtype, entry.out_dtype)
    except OverflowError as error:
        what = f"weight {entry.key!r} cannot be {entry.out_dtype}"
        raise InputError(f"{what}: {error}") from None


def _source(
    entry: WeightEntry, arrays: Mapping[str, Array], key: str, dtype: str, shape: Shape
) -> Array:
    try:
        array = arrays[key]
    except KeyError:
        text = f"weight {key!r} is missing, {entry.key!r} is made of it"
        raise InputError(text) from None
    expected = carrier(dtype), carried_shape(dtype, shape)
    if (array.dtype, array.shape) != expected:
        found, wanted = f"{array.dtype} {array.shape}", "{} {}".format(*expected)
        raise InputError(f"weight {key!r} is {found}, expected {wanted}")
    return array


def _merged_shape(entry: WeightEntry) -> Shape:
    shapes, axis = entry.shapes, entry.axis
    for dtype in (entry.dtype, entry.out_dtype):
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}")
    if entry.out_dtype != entry.dtype and not {entry.dtype, entry.out_dtype} <= {
        *FLOATS
    }:
        raise ValueError(f"cannot make {entry.out_dtype} of {entry.dtype}")
    if not shapes or len(shapes) != len(entry.sources):
        raise ValueError(f"{len(entry.sources)} sources, {len(shapes)} shapes")
    if entry.expression:
        if entry.dtype not in FLOATS:
            raise ValueError(f"an expression is not {entry.dtype}")
        return shape_of(entry.expression, shapes)
    if entry.group > 1 and entry.merge == "stack":
        shapes = _grouped_shapes(shapes, entry.group)
    elif entry.group != 1:
        raise ValueError(f"groups of {entry.group} are not for {entry.merge}")
    first = shapes[0]
    equal = all(shape == first for shape in shapes)
    match entry.merge:
        case None if len(shapes) == 1:
            return first
        case "sum" if equal and entry.dtype in FLOATS:
            return first
        case "gru_bias" if (
            equal
            and entry.dtype in FLOATS
            and (len(shapes) == 2 and len(first) == 1 and first[0] % 3 == 0)
        ):
            return first
        case "stack" if equal and 0 <= axis <= len(first):
            return (*first[:axis], len(shapes), *first[axis:])
        case "concat" if found := _concatenated_shape(shapes, axis):
            return found
        case _:
            pass
    raise ValueError(f"cannot merge {entry.dtype} {shapes} by {entry.merge}({axis=})")


def _concatenated_shape(shapes: tuple[Shape, ...], axis: int) -> Shape | None:
    """Of arrays that are all alike but along the axis; None for others."""
    first = shapes[0]
    alike = {(*shape[:axis], 0, *shape[axis + 1 :]) for shape in shapes}
    if not 0 <= axis < len(first) or len(alike) > 1:
        return None
    length = sum(shape[axis] for shape in shapes)
    return (*first[:axis], length, *first[axis + 1 :])


def _grouped_shapes(shapes: tuple[Shape, ...], group: int) -> tuple[Shape, ...]:
    groups = [shapes[i : i + group] for i in range(0, len(shapes), group)]
    found = [_concatenated_shape(shapes, 0) for shapes in groups]
    if None in found or len(shapes) % group:
        raise ValueError(f"cannot concatenate {shapes} in groups of {group}")
    return tuple(shape for shape in found if shape is not None)


def _stepped_shape(step: Step, shape: Shape) -> Shape:
    match step:
        case ("transpose", perm) if sorted(perm) == list(range(len(shape))):
            return tuple(shape[i] for i in assume(Shape, perm))
        case ("reshape", new) if min(new, default=1) >= 0 and (
            math.prod(new) == math.prod(shape)
        ):
            return new
        case ("slice", axis, start, stop) if 0 <= axis < len(shape) and (
            0 <= start <= stop <= shape[axis]
        ):
            return (*shape[:axis], stop - start, *shape[axis + 1 :])
        case _:
            raise ValueError(f"step {step} does not fit the shape {shape}")


def _take(step: Step, array: Array) -> Array:
    match step:
        case ("transpose", perm):
            return array.transpose(perm)
        case ("reshape", shape):
            return array.reshape(shape)
        case (_, axis, start, stop):
            return array[(slice(None),) * axis + (slice(start, stop),)]
        case _:
            raise AssertionError(step)


def _merge(entry: WeightEntry, arrays: list[Array]) -> Array:
    if entry.expression:
        return evaluate(entry.expression, arrays, entry.source_dtypes)
    match entry.merge:
        case "sum":
            return _sum(arrays, entry.dtype)
        case "gru_bias":
            gates = len(arrays[0]) // 3 * 2
            total = _sum([array[:gates] for array in arrays], entry.dtype)
            return np.concatenate([total, arrays[0][gates:]])
        case "concat":
            return np.concatenate(arrays, axis=entry.axis)
        case "stack":
            return _stack(entry, arrays)
        case _:
            return arrays[0]


def _stack(entry: WeightEntry, arrays: list[Array]) -> Array:
    # In place: of what is stacked nothing is in memory twice
    result = np.empty(_merged_shape(entry), arrays[0].dtype)
    places = np.moveaxis(result, entry.axis, 0)
    for i, place in enumerate(places):
        group = arrays[i * entry.group : (i + 1) * entry.group]
        if entry.group > 1:
            np.concatenate(group, out=place)
        else:
            place[...] = group[0]
    return result


def _sum(arrays: list[Array], dtype: str) -> Array:
    # Half precision is added in float32 and rounded once
    wide = np.float64 if dtype == "F64" else np.float32
    decode = widen if dtype == "BF16" else np.asarray
    with np.errstate(over="ignore", invalid="ignore"):
        total = decode(arrays[0]).astype(wide)
        for array in arrays[1:]:
            total += decode(array)
        return narrow(total) if dtype == "BF16" else total.astype(DTYPES[dtype])


def _fields(entry: WeightEntry) -> dict[str, Any]:
    fields = asdict(entry)
    if entry.target is None:
        del fields["target"]
    if entry.group == 1:
        del fields["group"]
    for name in ("expression", "dtypes"):
        if not fields[name]:
            del fields[name]
    return fields


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        fields = assume(dict[str, Any], value)
        return {key: _tuples(item) for key, item in fields.items()}
    return (
        tuple(map(_tuples, assume(list[Any], value)))
        if isinstance(value, list)
        else value
    )
