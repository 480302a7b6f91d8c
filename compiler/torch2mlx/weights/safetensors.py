"""Safetensors files of any size: read by memory map, written tensor by tensor.

A file is the header's length (u64, little endian), the header (JSON, padded with spaces), then
the tensors back to back. Reading is strict: what could be read in two ways is refused.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.weights.folder import new_file

# Dtype name -> the numpy dtype that carries it: types that numpy lacks travel as raw bits.
# The sub-byte types (F4, F6_E2M3, F6_E3M2) are missing: no array of theirs has the tensor's shape.
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(carrier)
    for name, carrier in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "F8_E4M3": "u1",
        "F8_E5M2": "u1",
        "F8_E8M0": "u1",
        "F8_E4M3FNUZ": "u1",
        "F8_E5M2FNUZ": "u1",
        "U16": "<u2",
        "I16": "<i2",
        "F16": "<f2",
        "BF16": "<u2",
        "U32": "<u4",
        "I32": "<i4",
        "F32": "<f4",
        "U64": "<u8",
        "I64": "<i8",
        "F64": "<f8",
        "C64": "<c8",
    }.items()
}

METADATA = "__metadata__"
MLX_METADATA: Mapping[str, str] = {"format": "mlx"}
# The limit of the reference implementation
MAX_HEADER = 100_000_000
# Non-contiguous arrays are made contiguous in blocks of about this many bytes
BLOCK = 16 << 20


class TensorInfo(NamedTuple):
    """One tensor of a file: dtype name, shape, and the bytes `start:stop` of the data section."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile(Mapping[str, NDArray[Any]]):
    """A memory-mapped file, as a read-only mapping from keys to arrays, in the order of the data.

    Arrays are views of the map: nothing is read before it is used, and the map lives as long as
    the last of them.

    Attributes:
        path: The file.
        metadata: Its `__metadata__`, empty when there is none.
        tensors: What the header says of each tensor.
    """

    def __init__(
        self,
        path: Path,
        metadata: dict[str, str],
        tensors: dict[str, TensorInfo],
        data: memoryview,
    ):
        self.path = path
        self.metadata = metadata
        self.tensors = tensors
        self._data = data

    def __getitem__(self, key: str) -> NDArray[Any]:
        dtype, shape, start, stop = self.tensors[key]
        return np.frombuffer(self._data[start:stop], DTYPES[dtype]).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_file(path: str | os.PathLike[str]) -> SafetensorsFile:
    """Maps a file and checks its header.

    Args:
        path: A safetensors file.

    Returns:
        The file; no tensor has been read yet.

    Raises:
        InputError: The file cannot be opened, or is malformed.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                _refuse(path, f"{size} bytes are too short for a safetensors file")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        _refuse(path, f"a header of {length} bytes, over the limit of {MAX_HEADER}")
    if 8 + length > size:
        _refuse(path, f"a header of {length} bytes, but only {size - 8} are there")
    header = _parse_json(path, bytes(data[8 : 8 + length]))
    metadata = _check_metadata(path, header.pop(METADATA, {}))
    tensors = {key: _check_tensor(path, key, info) for key, info in header.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1][2:]))
    _check_coverage(path, tensors, size - 8 - length)
    return SafetensorsFile(path, metadata, tensors, data[8 + length :])


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    produce: Callable[[str], NDArray[Any]],
    metadata: Mapping[str, str] = MLX_METADATA,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes a file, one tensor in memory at a time; it appears whole or not at all.

    Args:
        path: The file to write; an older one is replaced.
        tensors: Key, dtype name and shape of each tensor, in the order of the file.
        produce: Gives the array of a key, called once for each, in order; any strides will do.
        metadata: Strings for the header.
        progress: Called with the number of bytes written since the last call.

    Raises:
        InputError: The file cannot be written, or the format cannot hold a key or a dtype.
        ValueError: `produce` gave another dtype or shape than announced.
    """
    tensors = list(tensors)
    header = _header(tensors, metadata)
    with new_file(path) as file:
        file.write(header)
        for key, dtype, shape in tensors:
            array = produce(key)
            if array.dtype != DTYPES[dtype] or array.shape != tuple(shape):
                found = f"{array.dtype} {array.shape}"
                raise ValueError(f"{key!r}: {found} instead of {dtype} {shape}")
            for block in _blocks(array):
                file.write(block)
                if progress is not None:
                    progress(len(block))


def _header(
    tensors: list[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    start = 0
    for key, dtype, shape in tensors:
        if dtype not in DTYPES:
            raise InputError(f"tensor {key!r}: safetensors has no dtype {dtype!r}")
        if key in header or key == METADATA:
            why = "the name is reserved" if key == METADATA else "the key occurs twice"
            raise InputError(f"tensor {key!r} cannot be written: {why}")
        stop = start + math.prod(shape) * DTYPES[dtype].itemsize
        header[key] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of `array` in C order, copied block by block, and only if they are not in C order."""
    if array.size == 0:
        return
    if array.flags.c_contiguous:
        raw = array.reshape(-1).view(np.uint8).data
        yield from (raw[i : i + BLOCK] for i in range(0, len(raw), BLOCK))
        return
    rows = max(1, BLOCK * len(array) // array.nbytes)
    for i in range(0, len(array), rows):
        block = np.ascontiguousarray(array[i : i + rows])
        yield block.reshape(-1).view(np.uint8).data


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                _refuse(path, f"the key {key!r} occurs twice")
            result[key] = value
        return result

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        header = json.loads(
            text.decode(), object_pairs_hook=pairs, parse_constant=constant
        )
    except (ValueError, RecursionError) as error:
        _refuse(path, f"the header is not JSON ({error})")
    if not isinstance(header, dict):
        _refuse(path, "the header is not a JSON object")
    return cast(dict[str, Any], header)


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in cast(dict[str, Any], metadata).values()
    ):
        _refuse(path, f"{METADATA} does not map strings to strings")
    return cast(dict[str, str], metadata)


def _check_tensor(path: Path, key: str, info: Any) -> TensorInfo:
    match info:
        case {"dtype": str(dtype), "shape": list(), "data_offsets": [start, stop]}:
            pass
        case _:
            _refuse(path, f"tensor {key!r} lacks dtype, shape or data_offsets")
    shape = tuple(cast(dict[str, Any], info)["shape"])
    if dtype not in DTYPES:
        _refuse(path, f"tensor {key!r} has the unknown dtype {dtype!r}")
    # type(), because a JSON boolean would pass for an int
    if any(type(n) is not int or n < 0 for n in (*shape, start, stop)):
        _refuse(path, f"tensor {key!r} has a size or offset that is no natural number")
    itemsize = DTYPES[dtype].itemsize
    if len(shape) > 64 or math.prod(n for n in shape if n) * itemsize >= 1 << 63:
        _refuse(path, f"tensor {key!r} is too large: {dtype} {list(shape)}")
    if stop - start != math.prod(shape) * itemsize:
        text = f"{dtype} {list(shape)} takes {math.prod(shape) * itemsize} bytes"
        _refuse(path, f"tensor {key!r}: {text}, its offsets say {stop - start}")
    return TensorInfo(dtype, shape, start, stop)


def _check_coverage(path: Path, tensors: dict[str, TensorInfo], size: int) -> None:
    end = 0
    for key, info in tensors.items():
        if info.start != end:
            what = "overlaps the one before" if info.start < end else "follows a gap"
            _refuse(path, f"tensor {key!r} {what} (byte {info.start}, not {end})")
        if info.stop > size:
            what = f"ends at byte {info.stop} of {size}: the file is cut short"
            _refuse(path, f"tensor {key!r} {what}")
        end = info.stop
    if end != size:
        _refuse(path, f"{size - end} bytes after the last tensor")


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(f"{path} is not a valid safetensors file: {why}")
