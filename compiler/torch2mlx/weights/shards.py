"""Weights as a model's folder holds them: one file, or several of at most 5 GiB with an index."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from torch2mlx.weights.checkpoint import INDEX, SINGLE, index_text
from torch2mlx.weights.safetensors import MLX_METADATA, size_of, write

Tensor = tuple[str, str, tuple[int, ...]]

MAX_SHARD = 5 << 30


def shards(tensors: Iterable[Tensor], limit: int = MAX_SHARD) -> list[list[Tensor]]:
    """Divides tensors, in their order, into files of at most `limit` bytes.

    A tensor that is larger than that has a file of its own.
    """
    result: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        more = size_of(*tensor[1:])
        if result[-1] and size + more > limit:
            result.append([])
            size = 0
        result[-1].append(tensor)
        size += more
    return result


def write_model(
    folder: Path,
    tensors: Iterable[Tensor],
    produce: Callable[[str], NDArray[Any]],
    *,
    metadata: Mapping[str, str] = MLX_METADATA,
    progress: Callable[[int], None] | None = None,
    limit: int = MAX_SHARD,
) -> None:
    """Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` with an index.

    Args:
        folder: An existing folder.
        tensors: Key, dtype name and shape of each tensor, in the order of the files.
        produce: Gives the array of a key, as `safetensors.write` takes it.
        metadata: Strings for the header of each file.
        progress: Called with the number of bytes written since the last call.
        limit: The most bytes of a file.

    Raises:
        InputError: A file cannot be written.
    """
    divided = shards(tensors, limit)
    if len(divided) == 1:
        write(folder / SINGLE, divided[0], produce, metadata, progress)
        return
    weight_map: dict[str, str] = {}
    size = parameters = 0
    for number, shard in enumerate(divided, 1):
        name = f"model-{number:05d}-of-{len(divided):05d}.safetensors"
        write(folder / name, shard, produce, metadata, progress)
        weight_map |= {key: name for key, _, _ in shard}
        size += sum(size_of(dtype, shape) for _, dtype, shape in shard)
        parameters += sum(math.prod(shape) for _, _, shape in shard)
    (folder / INDEX).write_text(index_text(weight_map, size, parameters))


def is_weights_file(name: str) -> bool:
    """Whether `write_model` may have written a file: it would be read along with a newer one's."""
    return name == INDEX or fnmatch.fnmatch(name, "model*.safetensors")
