"""Arrays as blocks of bytes in C order, on their way to a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# Small enough for the processor's caches
BLOCK = 1 << 20


def blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of `array` in C order, block by block; copied only if they are not in C order."""
    if array.size == 0:
        return
    if array.flags.c_contiguous:
        raw = array.reshape(-1).view(np.uint8).data
        yield from (raw[i : i + BLOCK] for i in range(0, len(raw), BLOCK))
        return
    rows = BLOCK * len(array) // array.nbytes
    if not rows and array.ndim > 1:
        for row in array:
            yield from blocks(row)
        return
    rows = max(1, rows)
    for i in range(0, len(array), rows):
        block = np.ascontiguousarray(array[i : i + rows])
        yield block.reshape(-1).view(np.uint8).data


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Writes all of `data` to an unbuffered file, which may take it in parts."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
