"""Checkpoints as they lie on the disk: one safetensors file, or several with an index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.weights.safetensors import (
    SafetensorsFile,
    TensorInfo,
    open_file,
    parse_json,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Checkpoint(Mapping[str, NDArray[Any]]):
    """Safetensors files as one read-only mapping from keys to arrays, memory-mapped.

    Attributes:
        path: The file or folder that was opened.
        tensors: What the headers say of each tensor.
        metadata: `__metadata__` of the first file.
    """

    def __init__(self, path: Path, files: Iterable[SafetensorsFile]):
        self.path = path
        self.files = list(files)
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata = self.files[0].metadata if self.files else {}
        self._file_of: dict[str, SafetensorsFile] = {}
        self._last: SafetensorsFile | None = None
        for file in self.files:
            for key, info in file.tensors.items():
                if key in self._file_of:
                    first = self._file_of[key].path.name
                    text = f"the key {key!r} is in {first} and in {file.path.name}"
                    raise InputError(f"{path} is not a valid checkpoint: {text}")
                self._file_of[key] = file
                self.tensors[key] = info

    def __getitem__(self, key: str) -> NDArray[Any]:
        file = self._file_of[key]
        if self._last is not None and self._last is not file:
            self._last.release()
        self._last = file
        return file[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a checkpoint; no tensor is read yet.

    Args:
        path: A safetensors file, an index (`*.index.json`), or a folder that holds an index,
            `model.safetensors` or a single safetensors file.

    Raises:
        InputError: There is none, or it is malformed.
    """
    path = Path(path)
    if not path.is_dir():
        found = path
    elif (path / INDEX).exists():
        found = path / INDEX
    else:
        found = _only_file(path)
    if found.suffix == ".json":
        return Checkpoint(path, _indexed(found))
    return Checkpoint(path, [open_file(found)])


def _only_file(folder: Path) -> Path:
    if (folder / SINGLE).exists():
        return folder / SINGLE
    found = sorted(folder.glob("*.safetensors"))
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return indices[0]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"{folder} holds no safetensors file")
    names = ", ".join(file.name for file in found[:3])
    raise InputError(
        f"{folder} holds several safetensors files ({names}) and no {INDEX}: name one"
    )


def _indexed(index: Path) -> list[SafetensorsFile]:
    """The files of an index, checked against it."""
    weight_map = _read_index(index)
    files: dict[str, SafetensorsFile] = {}
    for name in sorted(set(weight_map.values())):
        if name != os.path.basename(name) or name in ("", ".", ".."):
            _refuse(index, f"{name!r} is no name of a file beside it")
        if not (index.parent / name).is_file():
            _refuse(index, f"it names {name}, which does not exist")
        files[name] = open_file(index.parent / name)
    for key, name in weight_map.items():
        if key not in files[name]:
            _refuse(index, f"it places {key!r} in {name}, which lacks it")
    for name, file in files.items():
        for key in file:
            if weight_map.get(key) != name:
                _refuse(index, f"{name} holds {key!r}, which it does not place there")
    return list(files.values())


def _read_index(index: Path) -> dict[str, str]:
    try:
        text = index.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {index}: {error.strerror or error}") from error
    try:
        data = parse_json(text)
    except ValueError as error:
        _refuse(index, str(error))
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in cast(dict[str, Any], weight_map).values()
    ):
        _refuse(index, "it has no weight_map from keys to files")
    return cast(dict[str, str], weight_map)


def _refuse(index: Path, why: str) -> NoReturn:
    raise InputError(f"{index} is not a valid index: {why}")


def index_text(weight_map: Mapping[str, str], size: int, parameters: int) -> str:
    """The text of an index, as mlx_lm writes it."""
    metadata = {"total_size": size, "total_parameters": parameters}
    ordered = {key: weight_map[key] for key in sorted(weight_map)}
    return json.dumps({"metadata": metadata, "weight_map": ordered}, indent=4) + "\n"
