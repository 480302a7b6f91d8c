"""From a compiled program to its folder: the source, the weights, config.json and the plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch2mlx.emit.loading import Loading
from torch2mlx.errors import InputError
from torch2mlx.quantize import Quantizing, suitable
from torch2mlx.weights import folder
from torch2mlx.weights.casting import FLOATS
from torch2mlx.weights.checkpoint import Checkpoint
from torch2mlx.weights.inverse import lossy_sources
from torch2mlx.weights.plan import Array, WeightEntry, WeightPlan, apply
from torch2mlx.weights.quantization import Quantization
from torch2mlx.weights.safetensors import size_of, write
from torch2mlx.weights.shards import (
    MAX_SHARD,
    Tensor,
    is_weights_file,
    shards,
    write_model,
)

MODEL_FILE = "model_mlx.py"
CONFIG_FILE = "config.json"
MAP_FILE = "model_mlx.map.json"
CERTIFICATE_FILE = "certificate.safetensors"
PLAN_FILE = "weights.json"
PARTS_FILE = "weight_parts.safetensors"
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Output:
    """What a folder will hold.

    Attributes:
        plan: How the weights are made, before they are quantized.
        sources: The arrays that they are made of.
        tensors: Key, dtype and shape of the arrays of the folder.
        arrays: These arrays, each made when it is asked for.
        loading: How they are stored.
        config: What config.json says of them.
        quantized: The layers that are quantized.
        limit: The most bytes of a file.
    """

    plan: WeightPlan
    sources: Mapping[str, Array]
    tensors: list[Tensor]
    arrays: Mapping[str, Array]
    loading: Loading
    config: dict[str, Any]
    quantized: list[str]
    limit: int

    @property
    def bytes(self) -> int:
        """The bytes of all arrays."""
        return sum(size_of(dtype, shape) for _, dtype, shape in self.tensors)


class Made(Mapping[str, Array]):
    """The arrays that a plan makes, each made when it is asked for.

    Args:
        plan: The plan.
        sources: What it makes them of.
        others: Further arrays, by keys that the plan does not have.
    """

    def __init__(
        self,
        plan: WeightPlan,
        sources: Mapping[str, Array],
        others: Mapping[str, Array] | None = None,
    ):
        self._plan = plan
        self._sources = sources
        self._others = others or {}

    def __getitem__(self, key: str) -> Array:
        if key in self._plan:
            return apply(self._plan[key], self._sources)
        return self._others[key]

    def __iter__(self) -> Iterator[str]:
        return (entry.key for entry in self._plan.entries)

    def __len__(self) -> int:
        return len(self._plan.entries)


def prepare(
    plan: WeightPlan,
    sources: Mapping[str, Array],
    *,
    layers: list[str],
    source: str,
    dtype: str | None = None,
    settings: Quantization | None = None,
    limit: int = MAX_SHARD,
) -> Output:
    """Decides what the folder will hold; nothing is read or written.

    Args:
        plan: How the weights are made.
        sources: What they are made of.
        layers: Paths of the layers that have a quantized form.
        source: The generated file.
        dtype: A name in `DTYPES` that all floating-point weights get, None for their own.
        settings: How to quantize, None for not at all.
        limit: The most bytes of a file.

    Raises:
        InputError: An unknown dtype, or no layer can be quantized.
    """
    if dtype is not None:
        if dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; it is {', '.join(DTYPES)}")
        plan = plan.cast(DTYPES[dtype])
    tensors, config = plan.tensors(), {}
    arrays: Mapping[str, Array] = Made(plan, sources)
    chosen: list[str] = []
    if settings is not None:
        chosen = suitable(layers, plan, settings, source)
        if not chosen:
            raise InputError(
                f"no layer can be quantized: nn.Linear and nn.Embedding can, with rows of a "
                f"multiple of {settings.group_size}, where nothing else reads their weights"
            )
        quantizing = Quantizing(chosen, settings, tensors, arrays)
        tensors, arrays, config = quantizing.tensors, quantizing, settings.config()
    loading = Loading(len(shards(tensors, limit)) > 1, settings)
    return Output(plan, sources, tensors, arrays, loading, config, chosen, limit)


def write_folder(
    path: str | Path,
    output: Output,
    texts: Mapping[str, str | bytes],
    progress: Callable[[int], None] | None = None,
    last: Callable[[Path], None] | None = None,
) -> Path:
    """Writes the folder, all of it or nothing.

    Args:
        path: The folder. Files of an older one are replaced, others stay.
        output: Its weights.
        texts: Its other files.
        progress: Called with the number of bytes written since the last call.
        last: Called with the folder that will take its place when all else is written.
    """

    def weights(stage: Path) -> None:
        write_model(
            stage,
            output.tensors,
            output.arrays.__getitem__,
            progress=progress,
            limit=output.limit,
        )
        kept = lossy_sources(output.plan)
        if kept:
            known = output.plan.sources()
            write(
                stage / PARTS_FILE,
                [(key, *known[key]) for key in kept],
                output.sources.__getitem__,
            )
        if last is not None:
            last(stage)

    def stale(name: str) -> bool:
        return is_weights_file(name) or name in (PARTS_FILE, CERTIFICATE_FILE, MAP_FILE)

    return folder.save_folder(
        path, {**texts, PLAN_FILE: output.plan.to_json()}, weights, stale
    )


class FromCheckpoint(Mapping[str, Array]):
    """The plan's sources out of a checkpoint, and out of the model what no checkpoint holds.

    Args:
        plan: What is needed.
        checkpoint: The checkpoint.
        tensors: The tensors of the model.

    Raises:
        InputError: The checkpoint lacks weights.

    Attributes:
        plan: The plan for the dtypes that the checkpoint has.
        unused: Keys of the checkpoint that are not needed.
    """

    def __init__(
        self, plan: WeightPlan, checkpoint: Checkpoint, tensors: Mapping[str, Array]
    ):
        self._checkpoint = checkpoint
        self._tensors = tensors
        self._names = {key: key for key in plan.sources()}
        # Of tied weights, any one will do
        for alias, key in plan.aliases.items():
            if key not in checkpoint and alias in checkpoint:
                self._names[key] = alias
        self._constants = set(plan.constants)
        missing = [
            key
            for key, name in self._names.items()
            if key not in self._constants and name not in checkpoint
        ]
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(f"{checkpoint.path} lacks the weights {names}{more}")
        needed = {*self._names.values(), *plan.aliases, *plan.unused}
        self.unused = sorted(checkpoint.tensors.keys() - needed)
        entries = (self._retyped(entry) for entry in plan.entries)
        self.plan = replace(plan, entries=tuple(entries))

    def _retyped(self, entry: WeightEntry) -> WeightEntry:
        given = zip(entry.sources, entry.source_dtypes, strict=True)
        dtypes = tuple(self._dtype(key, dtype) for key, dtype in given)
        if not entry.expression:
            return replace(entry, dtype=dtypes[0])
        floats = [dtype for dtype in dtypes if dtype in FLOATS]
        return replace(entry, dtype=floats[0], dtypes=dtypes)

    def _dtype(self, key: str, dtype: str) -> str:
        if key in self._constants:
            return dtype
        found = self._checkpoint.tensors[self._names[key]].dtype
        return found if {found, dtype} <= {*FLOATS} else dtype

    def __getitem__(self, key: str) -> Array:
        if key in self._constants:
            return self._tensors[key]
        return self._checkpoint[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def config_text(config: Mapping[str, Any]) -> str:
    """config.json as mlx_lm writes it."""
    return json.dumps(config, indent=4, sort_keys=True) + "\n"
