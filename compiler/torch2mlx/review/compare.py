"""The difference of two generated folders: code, weights, and the numbers that come out."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.review.merge import unified
from torch2mlx.review.record import InputRecord, read_record
from torch2mlx.review.texts import text_of
from torch2mlx.weights import Checkpoint, open_checkpoint
from torch2mlx.weights.casting import FLOATS, widen

TEXTS = ("model_mlx.py", "config.json")
MOST = 8


@dataclass(frozen=True)
class ArrayChange:
    """One array that differs.

    Attributes:
        key: Its key.
        what: In words.
        max_difference: The largest difference of its values; None where they cannot be compared.
    """

    key: str
    what: str
    max_difference: float | None = None


@dataclass(frozen=True)
class OutputChange:
    """One output of both models on the same inputs.

    Attributes:
        key: The keys that lead to it.
        max_difference: The largest difference; None where shape or dtype differ.
        max_value: The largest value of the old model.
    """

    key: str
    max_difference: float | None
    max_value: float

    @property
    def differs(self) -> bool:
        """Whether it is not the same, number by number."""
        return self.max_difference != 0

    def __str__(self) -> str:
        if self.max_difference is None:
            return f"{self.key}: another shape or dtype"
        if not self.differs:
            return f"{self.key}: the same"
        largest = f"{self.max_difference:.1e}, beside values up to {self.max_value:.1e}"
        return f"{self.key}: differs by {largest}"


@dataclass
class FolderDiff:
    """What differs between two folders.

    Attributes:
        texts: File name -> unified diff of the files that differ.
        arrays: The arrays that differ.
        same: How many arrays are the same.
        sizes: What is counted -> (old, new).
        outputs: What comes out.
        why_not: Why nothing came out, "" where something did.
    """

    texts: dict[str, str] = field(default_factory=dict)
    arrays: list[ArrayChange] = field(default_factory=list)
    same: int = 0
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    outputs: list[OutputChange] = field(default_factory=list)
    why_not: str = ""

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        return bool(self.texts or self.arrays) or any(o.differs for o in self.outputs)

    def lines(self) -> list[str]:
        """The difference for people to read."""
        return [*self._code(), *self._weights(), *self._numbers()]

    def _code(self) -> Iterator[str]:
        if not self.texts:
            yield "code: the same"
        for text in self.texts.values():
            yield from text.splitlines()

    def _weights(self) -> Iterator[str]:
        total = self.same + len(self.arrays)
        if not self.arrays:
            yield f"weights: {total} arrays, all the same"
            return
        yield f"weights: {len(self.arrays)} of {total} arrays differ"
        for change in self.arrays[:MOST]:
            yield f"    {change.key}: {change.what}"
        if len(self.arrays) > MOST:
            yield f"    and {len(self.arrays) - MOST} more"

    def _numbers(self) -> Iterator[str]:
        for name, (old, new) in self.sizes.items():
            yield f"{name}: {old:,}" if old == new else f"{name}: {old:,} -> {new:,}"
        if self.why_not:
            yield f"outputs: not compared, {self.why_not}"
        yield from (f"outputs: {output}" for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return {"differs": self.differs, **asdict(self)}


def diff_folders(old: Path, new: Path, seed: int = 0) -> FolderDiff:
    """Compare two folders; their code is run where both took the same inputs.

    Args:
        old: The one folder.
        new: The other.
        seed: Of the random inputs.

    Raises:
        InputError: One of them is no generated folder.
    """
    result = FolderDiff()
    for name in TEXTS:
        before, after = text_of(old / name), text_of(new / name)
        if name == TEXTS[0] and (before is None or after is None):
            missing = old if before is None else new
            raise InputError(f"{missing} is no generated folder: it has no {name}")
        text = unified(before or "", after or "", str(old / name), str(new / name))
        if text:
            result.texts[name] = text
        if name == TEXTS[0]:
            result.sizes["lines of code"] = (_lines(before), _lines(after))
    _compare_weights(result, open_checkpoint(old), open_checkpoint(new))
    _compare_outputs(result, old, new, seed)
    return result


def _lines(text: str | None) -> int:
    return (text or "").count("\n")


def _compare_weights(result: FolderDiff, old: Checkpoint, new: Checkpoint) -> None:
    for key in dict.fromkeys([*old, *new]):
        change = _array_change(key, old, new)
        if change is None:
            result.same += 1
        else:
            result.arrays.append(change)
    elements = [sum(math.prod(i.shape) for i in c.tensors.values()) for c in (old, new)]
    stored = [sum(i.stop - i.start for i in c.tensors.values()) for c in (old, new)]
    result.sizes["numbers in the weights"] = (elements[0], elements[1])
    result.sizes["bytes of the weights"] = (stored[0], stored[1])


def _array_change(key: str, old: Checkpoint, new: Checkpoint) -> ArrayChange | None:
    before, after = old.tensors.get(key), new.tensors.get(key)
    if before is None or after is None:
        info = after or before
        assert info is not None
        what = "added" if before is None else "removed"
        return ArrayChange(key, f"{what}: {info.dtype} {list(info.shape)}")
    if before.shape != after.shape:
        return ArrayChange(key, f"shape {list(before.shape)} -> {list(after.shape)}")
    one, other = old[key], new[key]
    alike = before.dtype == after.dtype
    if alike and one.tobytes() == other.tobytes():
        return None
    difference = None
    if {before.dtype, after.dtype} <= {*FLOATS}:
        values = [
            np.asarray(widen(array) if info.dtype == "BF16" else array, np.float64)
            for array, info in ((one, before), (other, after))
        ]
        difference = _largest(values[0], values[1])
    what = "" if alike else f"{before.dtype} -> {after.dtype}"
    if difference is not None:
        by = f"values differ by {difference:.1e}" if difference else "the same values"
        what = f"{what}, {by}" if what else by
    return ArrayChange(key, what or "values differ", difference)


def _largest(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference; 0 where both are NaN or the same infinity."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return float(np.where(same, 0, np.abs(one - other)).max(initial=0))


def _compare_outputs(result: FolderDiff, old: Path, new: Path, seed: int) -> None:
    records = [read_record(folder) for folder in (old, new)]
    inputs = [list(record.inputs) if record else None for record in records]
    known = [found for found in inputs if found is not None]
    if not known:
        result.why_not = "neither folder has a record of its inputs"
        return
    if len(known) == 2 and not _alike(known[0], known[1]):
        result.why_not = "they take other inputs"
        return
    try:
        result.outputs = _outputs_of(old, new, known[0], seed)
    except ModuleNotFoundError as error:
        result.why_not = f"there is no {error.name} to run them"
    except Exception as error:
        text = str(error).partition("\n")[0]
        result.why_not = f"the code fails: {type(error).__name__}: {text}"


def _alike(one: Sequence[InputRecord], other: Sequence[InputRecord]) -> bool:
    found = [[(i.key, i.shape, i.dtype) for i in records] for records in (one, other)]
    return found[0] == found[1]


def _outputs_of(
    old: Path, new: Path, inputs: Sequence[InputRecord], seed: int
) -> list[OutputChange]:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    arrays = [(item.key, mx.array(_drawn(item, seed))) for item in inputs]
    arrays = [
        (key, array.astype(getattr(mx, item.dtype)))
        for (key, array), item in zip(arrays, inputs, strict=True)
    ]
    found: list[dict[str, Any]] = []
    for folder in (old, new):
        nested: dict[str, Any] = dict(tree_unflatten(arrays))  # type: ignore[arg-type]
        output = _loaded(folder)(**nested)
        found.append(dict(tree_flatten({"output": output})))  # type: ignore[arg-type]
    changes: list[OutputChange] = []
    for key in dict.fromkeys([*found[0], *found[1]]):
        x, y = found[0].get(key), found[1].get(key)
        if not isinstance(x, mx.array) or not isinstance(y, mx.array):
            difference: float | None = 0.0 if x is y else None
            changes.append(OutputChange(key, difference, 0.0))
        else:
            changes.append(_output_change(key, x, y))
    return changes


def _output_change(key: str, x: Any, y: Any) -> OutputChange:
    import mlx.core as mx

    complex_or = mx.complex64 if x.dtype == mx.complex64 else mx.float32
    one, other = (np.array(array.astype(complex_or)) for array in (x, y))
    finite = np.abs(one[np.isfinite(one)])
    largest = float(finite.max(initial=0))
    if x.shape != y.shape or x.dtype != y.dtype:
        return OutputChange(key, None, largest)
    return OutputChange(key, _largest(one, other), largest)


def _drawn(item: InputRecord, seed: int) -> NDArray[Any]:
    generator = np.random.default_rng(seed)
    if "float" in item.dtype:
        return generator.standard_normal(item.shape, np.float32)
    if "complex" in item.dtype:
        parts = generator.standard_normal((2, *item.shape), np.float32)
        return (parts[0] + 1j * parts[1]).astype(np.complex64)
    return generator.integers(item.low, item.high + 1, item.shape)


def _loaded(folder: Path) -> Any:
    """The model of a folder, whose code is run."""
    path = folder / TEXTS[0]
    spec = importlib.util.spec_from_file_location("model_mlx", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_model()
