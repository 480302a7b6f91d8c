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
from torch2mlx.weights.blocks import blocks, write_all
from torch2mlx.weights.folder import new_file

# Dtype name -> the numpy dtype that carries it: types that numpy lacks travel as raw bits.
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

# Dtypes whose elements are no whole bytes, with their bits: carried as a row of bytes.
PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
BYTE = np.dtype("u1")

METADATA = "__metadata__"
MLX_METADATA: Mapping[str, str] = {"format": "mlx"}
# Mapped bytes that are kept in memory after they have been read
RESIDENT = 64 << 20
# The limit of the reference implementation
MAX_HEADER = 100_000_000


def carrier(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of the arrays that carry `dtype`."""
    return BYTE if dtype in PACKED else DTYPES[dtype]


def carried_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the array that carries a tensor: its own, or its bytes where it is packed."""
    return (size_of(dtype, shape),) if dtype in PACKED else tuple(shape)


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """The bytes that a tensor takes.

    Raises:
        ValueError: They are no whole number.
    """
    if dtype not in PACKED:
        return math.prod(shape) * DTYPES[dtype].itemsize
    size, rest = divmod(math.prod(shape) * PACKED[dtype], 8)
    if rest:
        raise ValueError(f"{dtype} {list(shape)} takes no whole number of bytes")
    return size


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
        data: mmap.mmap,
        offset: int,
    ):
        self.path = path
        self.metadata = metadata
        self.tensors = tensors
        self._map = data
        self._data = memoryview(data)[offset:]
        self._touched = 0

    def __getitem__(self, key: str) -> NDArray[Any]:
        dtype, shape, start, stop = self.tensors[key]
        self._drop_pages(stop - start)
        array = np.frombuffer(self._data[start:stop], carrier(dtype))
        return array.reshape(carried_shape(dtype, shape))

    def _drop_pages(self, size: int) -> None:
        """Releases what was read before; the system reads it again if need be."""
        if self._touched + size > RESIDENT:
            self.release()
        self._touched += size

    def release(self) -> None:
        """Gives the memory of all that was read back to the system."""
        if self._touched and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        self._touched = 0

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
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    metadata, tensors, offset = _read_header(path, data)
    return SafetensorsFile(path, metadata, tensors, data, offset)


def _read_header(
    path: Path, data: mmap.mmap
) -> tuple[dict[str, str], dict[str, TensorInfo], int]:
    """The metadata, the tensors in the order of their data, and where the data begin."""
    size, length = len(data), int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        _refuse(path, f"a header of {length} bytes, over the limit of {MAX_HEADER}")
    if 8 + length > size:
        _refuse(path, f"a header of {length} bytes, but only {size - 8} are there")
    header = _parse_header(path, data[8 : 8 + length])
    metadata = _check_metadata(path, header.pop(METADATA, {}))
    tensors = {key: _check_tensor(path, key, info) for key, info in header.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1][2:]))
    _check_coverage(path, tensors, size - 8 - length)
    return metadata, tensors, 8 + length


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
    report = progress or (lambda count: None)
    with new_file(path) as file:
        write_all(file, header)
        for key, dtype, shape in tensors:
            array = produce(key)
            expected = carrier(dtype), carried_shape(dtype, shape)
            if (array.dtype, array.shape) != expected:
                found = f"{array.dtype} {array.shape}"
                raise ValueError(f"{key!r}: {found} instead of {dtype} {shape}")
            for block in blocks(array):
                write_all(file, block)
                report(len(block))


def _header(
    tensors: list[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    start = 0
    for key, dtype, shape in tensors:
        if dtype not in DTYPES and dtype not in PACKED:
            raise InputError(f"tensor {key!r}: safetensors has no dtype {dtype!r}")
        if key in header or key == METADATA:
            why = "the name is reserved" if key == METADATA else "the key occurs twice"
            raise InputError(f"tensor {key!r} cannot be written: {why}")
        try:
            stop = start + size_of(dtype, shape)
        except ValueError as error:
            raise InputError(f"tensor {key!r} cannot be written: {error}") from None
        header[key] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def parse_json(text: bytes) -> Any:
    """Strict JSON: UTF-8, no key twice, no NaN.

    Raises:
        ValueError: `text` is not that.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise _Twice(f"the key {key!r} occurs twice")
            result[key] = value
        return result

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(
            text.decode(), object_pairs_hook=pairs, parse_constant=constant
        )
    except _Twice:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


class _Twice(ValueError):
    pass


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = parse_json(text)
    except _Twice as error:
        _refuse(path, str(error))
    except ValueError as error:
        _refuse(path, f"the header is {error}")
    if not isinstance(header, dict):
        _refuse(path, "the header is not a JSON object")
    return cast(dict[str, Any], header)


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if metadata is None:
        # What MLX writes where it is given none
        return {}
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
    if dtype not in DTYPES and dtype not in PACKED:
        _refuse(path, f"tensor {key!r} has the unknown dtype {dtype!r}")
    # type(), because a JSON boolean would pass for an int
    if any(type(n) is not int or n < 0 for n in (*shape, start, stop)):
        _refuse(path, f"tensor {key!r} has a size or offset that is no natural number")
    if len(shape) > 64 or math.prod(n for n in shape if n) >= 1 << 59:
        _refuse(path, f"tensor {key!r} is too large: {dtype} {list(shape)}")
    try:
        size = size_of(dtype, shape)
    except ValueError as error:
        _refuse(path, f"tensor {key!r}: {error}")
    if stop - start != size:
        text = f"{dtype} {list(shape)} takes {size} bytes"
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
