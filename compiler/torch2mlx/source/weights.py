"""A model's weights from a checkpoint: mapped into memory, so that only what is used is read."""

from __future__ import annotations

import math
import mmap
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source.loaded import RANDOM_WEIGHTS, Loaded
from torch2mlx.source.user_code import first_line
from torch2mlx.weights import (
    Checkpoint,
    SafetensorsFile,
    WeightPlan,
    apply,
    open_checkpoint,
)
from torch2mlx.weights.composition import is_plain

PICKLES = (".pt", ".pth", ".bin", ".ckpt")

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class MissingWeights(InputError):
    """A checkpoint lacks weights."""


def with_weights(loaded: Loaded, path: Path) -> Loaded:
    """The model with the weights of a checkpoint.

    Args:
        loaded: The model.
        path: Safetensors (a file, an index or a folder), or a pickled state dict.

    Raises:
        InputError: The checkpoint is malformed, or lacks weights, or has some of another shape.
    """
    if loaded.program is not None:
        raise InputError("an exported program brings its weights along")
    pickled = path.suffix in PICKLES
    tensors = read_pickle(path) if pickled else mapped(open_checkpoint(path))
    unused = assign(loaded.model, tensors, str(path))
    notes = [note for note in loaded.notes if note != RANDOM_WEIGHTS]
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        notes.append(f"not used of {path}: {', '.join(unused[:3])}{more}")
    return replace(
        loaded,
        notes=tuple(notes),
        checkpoint=None if pickled else path,
        # Its names are those of the state dict
        options={k: v for k, v in loaded.options.items() if k != "conversion"},
    )


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file that torch.save wrote; no code that it contains is run.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        value = _load(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a state dict: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    if not isinstance(value, Mapping) or not all(
        isinstance(tensor, torch.Tensor) for tensor in value.values()
    ):
        raise InputError(f"{path} holds a {type(value).__name__}, not a state dict")
    return dict(value)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        # Files of torch before 1.6 are no zip archives
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def mapped(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The tensors of safetensors files, which are read where they are used."""
    return {
        key: tensor
        for file in checkpoint.files
        for key, tensor in _mapped(file).items()
    }


def converted(
    plan: WeightPlan, checkpoint: Checkpoint, values: bool
) -> dict[str, torch.Tensor]:
    """The tensors that a plan makes of a checkpoint; mapped into memory where they only get another name.

    Args:
        plan: How each is made.
        checkpoint: What they are made of.
        values: Whether to make the others; else they are on the meta device.
    """
    given = mapped(checkpoint)
    found: dict[str, torch.Tensor] = {}
    for entry in plan.entries:
        dtype = DTYPES[entry.out_dtype]
        if is_plain(entry):
            found[entry.key] = given[entry.sources[0]]
        elif values:
            array = np.ascontiguousarray(apply(entry, checkpoint))
            found[entry.key] = torch.from_numpy(array).view(dtype)
        else:
            found[entry.key] = torch.empty(entry.out_shape, dtype=dtype, device="meta")
    return found


def _mapped(file: SafetensorsFile) -> dict[str, torch.Tensor]:
    with open(file.path, "rb") as opened:
        # Private: what the model writes to its weights stays in memory
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    offset = 8 + int.from_bytes(data[:8], "little")
    tensors: dict[str, torch.Tensor] = {}
    for key, info in file.tensors.items():
        if info.dtype not in DTYPES:
            raise InputError(f"{file.path}: PyTorch has no {info.dtype}, as {key!r} is")
        dtype, count = DTYPES[info.dtype], math.prod(info.shape)
        if count:
            tensor = torch.frombuffer(
                data, dtype=dtype, count=count, offset=offset + info.start
            )
        else:
            tensor = torch.empty(0, dtype=dtype)
        tensors[key] = tensor.reshape(info.shape)
    return tensors


@contextmanager
def parameters_on_meta() -> Generator[None, None, None]:
    """Modules that are built meanwhile have parameters without values; buffers are computed."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def assign(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], path: str
) -> list[str]:
    """Give a model the tensors of a checkpoint, without copying them.

    Returns:
        The keys that it does not use.

    Raises:
        MissingWeights: Weights are missing.
        InputError: They have another shape.
    """
    own = model.state_dict(keep_vars=True)
    tied = _tied(own)
    found = {key: tensors[key] for key in own if key in tensors}
    missing = [
        key
        for key in own
        if key not in found
        and not key.endswith("num_batches_tracked")
        and not any(other in found for other in tied[id(own[key])])
    ]
    if missing:
        names = ", ".join(map(repr, missing[:5]))
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise MissingWeights(f"{path} lacks the weights {names}{more}")
    for key, tensor in found.items():
        if tensor.shape != own[key].shape:
            wrong = f"{list(tensor.shape)}, the model wants {list(own[key].shape)}"
            raise InputError(f"{path}: weight {key!r} has the shape {wrong}")
    # Names that share a tensor go on sharing it
    for keys in tied.values():
        held = next((found[key] for key in keys if key in found), None)
        if held is None:
            continue
        before = own[keys[0]]
        if isinstance(before, nn.Parameter):
            held = nn.Parameter(held, before.requires_grad)
        found |= dict.fromkeys(keys, held)
    model.load_state_dict(found, strict=False, assign=True)
    return sorted(tensors.keys() - own.keys())


def _tied(own: Mapping[str, torch.Tensor]) -> dict[int, list[str]]:
    """The names of each tensor."""
    names: dict[int, list[str]] = {}
    for key, tensor in own.items():
        names.setdefault(id(tensor), []).append(key)
    return names
