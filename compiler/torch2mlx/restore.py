"""The way back: from a generated folder to the state dict of the PyTorch model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.errors import InputError
from torch2mlx.weights import folder, safetensors
from torch2mlx.weights.checkpoint import Checkpoint, open_checkpoint
from torch2mlx.weights.inverse import Inverse
from torch2mlx.weights.plan import WeightPlan
from torch2mlx.weights.quantization import Quantization, quantization
from torch2mlx.weights.shards import MAX_SHARD, Tensor, is_weights_file, write_model

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

PLAN_FILE = "weights.json"
PARTS_FILE = "weight_parts.safetensors"
TORCH_METADATA = {"format": "pt"}


def to_torch(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    plan: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, torch.Tensor] | Path:
    """The weights of a generated folder under PyTorch's names, in PyTorch's layouts.

    Weights that were trained, stored in another precision or quantized since are taken as they are; the
    latter are dequantized.

    Args:
        path: The folder.
        output: Where to write them: a `.safetensors` file, or a folder for one or several of them. None
            returns them as tensors.
        plan: Another folder that has the plan, `weights.json`, where tools have left it out of this one.
        progress: Called with the number of bytes written since the last call.

    Returns:
        The state dict, or `output`.

    Raises:
        InputError: The folder is not one of torch2mlx, or its weights are not those of its plan; or
            `output` cannot be written.
    """
    restored = Restored(Path(path), Path(plan or path))
    if output is None:
        return _state_dict(restored)
    return _write(restored, Path(output), progress)


def restore(path: Path, output: Path) -> dict[str, Any]:
    """`to_torch` for the command: writes `output` and says what was done."""
    restored = Restored(path, path)
    _write(restored, output)
    return {
        "folder": str(output),
        "tensors": len(restored),
        "dropped": sorted(restored.plan.unused),
    }


def _write(
    restored: Restored, output: Path, progress: Callable[[int], None] | None = None
) -> Path:
    if output.suffix == ".safetensors":
        safetensors.write(
            output, restored.tensors(), restored.__getitem__, TORCH_METADATA, progress
        )
        return output

    def weights(stage: Path) -> None:
        write_model(
            stage,
            restored.tensors(),
            restored.__getitem__,
            metadata=TORCH_METADATA,
            progress=progress,
            limit=MAX_SHARD,
        )

    return folder.save_folder(output, {}, weights, is_weights_file)


class Restored(Mapping[str, Array]):
    """The state dict as arrays, each made when it is asked for.

    Args:
        path: The generated folder.
        plan: The folder that has the plan.

    Attributes:
        plan: How the folder's weights were made.

    Raises:
        InputError: See `to_torch`.
    """

    def __init__(self, path: Path, plan: Path):
        self.plan = _read_plan(plan)
        self._weights = _Weights(path, self.plan)
        parts = plan / PARTS_FILE
        known = safetensors.open_file(parts) if parts.exists() else None
        self._inverse = Inverse(self.plan, self._weights, known)

    def tensors(self) -> list[Tensor]:
        """Key, dtype and shape of each."""
        return [
            (key, self.dtype(key), self._inverse.shape(key)) for key in self._inverse
        ]

    def dtype(self, key: str) -> str:
        """The safetensors name of a dtype: the one that the folder has it in."""
        return self._weights.dtypes[self._inverse.made_from(key)]

    def owner(self, key: str) -> str:
        """The key that holds the array of a key: another one where weights are tied."""
        return self._inverse.owner(key)

    def __getitem__(self, key: str) -> Array:
        return self._inverse[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inverse)

    def __len__(self) -> int:
        return len(self._inverse)


class _Weights(Mapping[str, Array]):
    """The folder's arrays, those of quantized layers dequantized when they are asked for."""

    def __init__(self, path: Path, plan: WeightPlan):
        self._checkpoint: Checkpoint = open_checkpoint(path)
        self._settings = _Settings(path)
        tensors = self._checkpoint.tensors
        planned = {entry.key: entry.out_dtype for entry in plan.entries}
        layers = (key.removesuffix(".scales") for key in tensors if key not in planned)
        self._layers = {f"{layer}.weight": layer for layer in layers}
        self._layers = {k: v for k, v in self._layers.items() if k in planned}
        parts = {
            f"{layer}.{name}"
            for layer in self._layers.values()
            for name in ("scales", "biases")
        } - planned.keys()
        self.dtypes = {
            key: planned[key] if key in self._layers else info.dtype
            for key, info in tensors.items()
            if key not in parts
        }
        for key, layer in self._layers.items():
            if f"{layer}.biases" in parts & tensors.keys():
                self.dtypes[key] = tensors[f"{layer}.scales"].dtype

    def __getitem__(self, key: str) -> Array:
        if key not in self.dtypes:
            raise KeyError(key)
        layer = self._layers.get(key)
        if layer is None:
            return self._checkpoint[key]
        from torch2mlx.quantize import dequantize

        names = ("weight", "scales", "biases")
        parts = {
            name: self._checkpoint[f"{layer}.{name}"]
            for name in names
            if f"{layer}.{name}" in self._checkpoint
        }
        return dequantize(parts, self.dtypes[key], self._settings.of(layer))

    def __iter__(self) -> Iterator[str]:
        return iter(self.dtypes)

    def __len__(self) -> int:
        return len(self.dtypes)


class _Settings:
    """What config.json says about the quantization of each layer."""

    def __init__(self, path: Path):
        self._path = path / "config.json"
        self._config: Any = None

    def of(self, layer: str) -> Quantization:
        if self._config is None:
            self._config = self._read()
        found = self._config.get(layer, self._config)
        try:
            mode = found.get("mode", "affine")
            return quantization(found["bits"], found["group_size"], mode)
        except (KeyError, TypeError, AttributeError):
            text = f"it does not say how {layer!r} is quantized"
            raise InputError(f"{self._path}: {text}") from None

    def _read(self) -> Any:
        try:
            config = json.loads(self._path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {self._path}: {error}") from error
        return config.get("quantization", {}) if isinstance(config, dict) else {}


def _read_plan(path: Path) -> WeightPlan:
    file = path / PLAN_FILE if path.is_dir() else path
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise InputError(
            f"{path} has no {PLAN_FILE}, which says how its weights were made; name a folder that has it "
            "as the plan"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    try:
        return WeightPlan.from_json(text)
    except InputError as error:
        raise InputError(f"{file} is {error}") from error


def _state_dict(restored: Restored) -> dict[str, torch.Tensor]:
    import torch

    dtypes = {
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    }
    tensors: dict[str, torch.Tensor] = {}
    for key in restored:
        owner = restored.owner(key)
        if owner not in tensors:
            # A copy: the file is mapped read-only
            tensor = torch.from_numpy(np.array(restored[owner], order="C"))
            dtype = dtypes.get(restored.dtype(owner))
            tensors[owner] = tensor if dtype is None else tensor.view(dtype)
    return {key: tensors[restored.owner(key)] for key in restored}
