"""Inputs from the command line: `--input` specs -> arguments of `forward`.

[NAME=]2,3,224,224          float32 of that shape, random
[NAME=]int64[2,16]          another dtype; integers are drawn below the size of the table they index
FILE.npz                    arrays of a file: `arr_0`, `arr_1` by position, others by name
[NAME=]FILE.npy             one array
"""

from __future__ import annotations

import inspect
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from torch2mlx.errors import InputError

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        "float32",
        "float16",
        "bfloat16",
        "float64",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
    )
}
EXAMPLES = "2,3,224,224 or int64[2,16] or input_ids=int64[2,16] or inputs.npz"

_MOST_NUMBERS = 2**31
_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
# What NumPy raises on files that are damaged or of another kind
_UNREADABLE = (OSError, ValueError, EOFError, BadZipFile, zlib.error)
_TYPED = re.compile(r"([A-Za-z]\w*)\[(.*)\]", re.DOTALL)


@dataclass(frozen=True)
class InputSpec:
    """One input: its shape and dtype, or its values.

    Attributes:
        name: The argument of `forward`, or None where the position decides.
        shape: Sizes of all dimensions.
        dtype: Element type.
        value: Values read from a file, or None where random ones do.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    value: torch.Tensor | None = None

    def __str__(self) -> str:
        return describe(self.name, self.shape, self.dtype)


def describe(name: str | None, shape: Sequence[int], dtype: torch.dtype) -> str:
    """`x: float32 [2, 3]`, as reports and messages show an input."""
    text = f"{str(dtype).removeprefix('torch.')} [{', '.join(map(str, shape))}]"
    return f"{name}: {text}" if name else text


def parse(spec: str) -> list[InputSpec]:
    """Parse one `--input`; only an npz file gives more than one input.

    Raises:
        InputError: The spec is malformed or its file cannot be read; the bad part is named.

    >>> [str(s) for s in parse("input_ids=int64[2,16]")]
    ['input_ids: int64 [2, 16]']
    >>> str(parse("2,3,224,224")[0])
    'float32 [2, 3, 224, 224]'
    """
    named = _NAMED.fullmatch(spec.strip())
    name, text = (named[1], named[2].strip()) if named else (None, spec.strip())
    if text.endswith((".npz", ".npy")):
        return _read(spec, name, Path(text))
    if not text:
        raise _bad(spec, f"it is empty; give {EXAMPLES}")
    typed = _TYPED.fullmatch(text)
    if typed is None:
        if "[" in text or "]" in text:
            raise _bad(spec, "a dtype and its sizes are written like int64[2,16]")
        if text in DTYPES:
            raise _bad(spec, f"{text!r} has no sizes; write {text}[2,16]")
        return [InputSpec(name, _sizes(spec, text))]
    if typed[1] not in DTYPES:
        known = ", ".join(DTYPES)
        raise _bad(spec, f"unknown dtype {typed[1]!r}; it is one of {known}")
    sizes = _sizes(spec, typed[2]) if typed[2].strip() else ()
    return [InputSpec(name, sizes, DTYPES[typed[1]])]


def parse_all(specs: Sequence[str]) -> list[InputSpec]:
    """Parse every `--input` of a command line.

    Raises:
        InputError: One of them is malformed, or a name comes twice.
    """
    parsed = [one for spec in specs for one in parse(spec)]
    names = [one.name for one in parsed if one.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--input: {name!r} is given twice")
    return parsed


def fill(
    specs: Sequence[InputSpec], names: Sequence[str], limits: Mapping[str, int]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Random values for the inputs, the same ones every time.

    Args:
        specs: The inputs; those without a name are positional.
        names: The argument of `forward` that each one belongs to.
        limits: Name -> values of this integer input are below it; "" holds for the others.

    Returns:
        Positional and keyword arguments of `forward`.
    """
    generator = torch.Generator().manual_seed(0)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for spec, name in zip(specs, names, strict=True):
        value = spec.value
        if value is None:
            limit = limits.get(name, limits.get("", 2))
            value = values(name, spec.shape, spec.dtype, limit, generator)
        if spec.name is None:
            args.append(value)
        else:
            kwargs[spec.name] = value
    return tuple(args), kwargs


def values(
    name: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    limit: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Random values that a model is likely to accept: masks are ones, integers below `limit`."""
    if dtype is torch.bool:
        return torch.ones(*shape, dtype=torch.bool)
    if dtype.is_floating_point or dtype.is_complex:
        kind = torch.complex64 if dtype.is_complex else torch.float32
        return torch.randn(*shape, generator=generator, dtype=kind).to(dtype)
    if name.endswith("mask"):
        return torch.ones(*shape, dtype=dtype)
    high = min(limit, torch.iinfo(dtype).max)
    return torch.randint(0, max(high, 1), tuple(shape), generator=generator).to(dtype)


def name_positions(model: torch.nn.Module, specs: Sequence[InputSpec]) -> list[str]:
    """The argument of `forward` that each input belongs to.

    Raises:
        InputError: `forward` has no such argument, or lacks one.
    """
    signature = inspect.signature(model.forward)
    args = [spec for spec in specs if spec.name is None]
    kwargs = {spec.name: spec for spec in specs if spec.name is not None}
    model_class = type(model).__name__
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise InputError(
            f"--input: {error}; forward() of {model_class} takes {takes}"
        ) from None
    owner: dict[int, str] = {}
    for name, value in bound.arguments.items():
        values: tuple[Any, ...] = (value,)
        if isinstance(value, tuple):
            values = value
        elif isinstance(value, dict):
            values = tuple(value.values())
        owner.update({id(one): name for one in values})
    return [spec.name or owner[id(spec)] for spec in specs]


def _sizes(spec: str, text: str) -> tuple[int, ...]:
    sizes = []
    for part in text.split(","):
        part = part.strip()
        if not (part.isascii() and part.isdigit()):
            raise _bad(spec, f"{part!r} is not a size; give {EXAMPLES}")
        if int(part) == 0:
            raise _bad(spec, "sizes must be at least 1")
        sizes.append(int(part))
    if math.prod(sizes) > _MOST_NUMBERS:
        raise _bad(spec, f"{math.prod(sizes):,} numbers are too many for an example")
    return tuple(sizes)


def _read(spec: str, name: str | None, path: Path) -> list[InputSpec]:
    try:
        with path.open("rb") as file:
            return _arrays(spec, name, path, np.load(file, allow_pickle=False))
    except FileNotFoundError:
        raise _bad(spec, f"there is no file {path}") from None
    except _UNREADABLE as error:
        why = f"{path} cannot be read as NumPy arrays: {error}"
        raise _bad(spec, why) from None


def _arrays(spec: str, name: str | None, path: Path, loaded: Any) -> list[InputSpec]:
    if isinstance(loaded, np.ndarray):
        return [_array(spec, name, loaded)]
    if name is not None:
        raise _bad(spec, f"{path} names its arrays itself; leave out '{name}='")
    if not loaded.files:
        raise _bad(spec, f"{path} holds no array")
    return [
        _array(
            spec,
            None if re.fullmatch(r"arr_\d+", key) else key,
            _member(spec, loaded, key),
        )
        for key in loaded.files
    ]


def _member(spec: str, loaded: Any, key: str) -> np.ndarray:
    try:
        return loaded[key]
    except _UNREADABLE as error:
        raise _bad(spec, f"array {key!r} cannot be read: {error}") from None


def _array(spec: str, name: str | None, value: np.ndarray) -> InputSpec:
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    except TypeError:
        what = f"array {name!r}" if name else "the array"
        raise _bad(
            spec, f"{what} has the dtype {value.dtype}, which is no tensor dtype"
        ) from None
    return InputSpec(name, tuple(tensor.shape), tensor.dtype, tensor)


def _bad(spec: str, why: str) -> InputError:
    return InputError(f"--input {spec!r}: {why}")
