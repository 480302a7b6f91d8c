"""Verify a folder as it lies on the disk: edited code, weights that were trained or converted since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import torch

from torch2mlx.arrays import from_numpy
from torch2mlx.errors import InputError
from torch2mlx.verify.compare import mlx_to_numpy
from torch2mlx.verify.result import Verification
from torch2mlx.weights import open_checkpoint
from torch2mlx.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch2mlx.api import Program

HALF = {"F16": 2.0**-10, "BF16": 2.0**-7}
ROUNDINGS = 8


def verify_folder(
    model: torch.nn.Module,
    folder: str | Path,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    absolute: float = 1e-4,
    relative: float = 1e-3,
    seed: int = 0,
    repro: str | Path | None = None,
    **options: Any,
) -> Verification:
    """Compare a generated folder, code and weights as they are now, with the PyTorch model.

    Args:
        model: The PyTorch model.
        folder: The folder.
        args: Example positional arguments of `forward`; inferred where neither these nor `kwargs` are given.
        kwargs: Example keyword arguments.
        absolute: Largest difference that is allowed beside zeros.
        relative: Largest difference that is allowed, relative to the largest value of an output.
        seed: Of the random inputs.
        repro: Where to write a script that shows the first difference.
        options: Those of `torch2mlx.compile` that the folder was compiled with.

    Raises:
        InputError: The folder is none of torch2mlx, or its weights are quantized.
        UnsupportedError: The model cannot be compiled, which is what the comparison rests on.
    """
    from torch2mlx.api import compile
    from torch2mlx.source.infer import infer

    if not args and not kwargs:
        args, kwargs, _ = infer(model)
    program = compile(model, args, kwargs, **options)
    return compare_folder(
        program,
        Path(folder),
        absolute=absolute,
        relative=relative,
        seed=seed,
        repro=repro,
    )


def compare_folder(
    program: Program,
    folder: Path,
    *,
    absolute: float = 1e-4,
    relative: float = 1e-3,
    seed: int = 0,
    repro: str | Path | None = None,
) -> Verification:
    """`verify_folder` for a model that is compiled already."""
    found = in_folder(program, folder)
    eps = _widest(open_checkpoint(folder))
    return found.verify(
        absolute=max(absolute, eps),
        relative=max(relative, ROUNDINGS * eps),
        seed=seed,
        repro=repro,
        folder=folder,
    )


def in_folder(program: Program, folder: Path) -> Program:
    """The program with the code and the weights of a folder.

    Raises:
        InputError: There is no such folder, its code is no Python, or its weights are quantized.
    """
    from torch2mlx.saving import CONFIG_FILE, MODEL_FILE

    try:
        source = (folder / MODEL_FILE).read_text(encoding="utf-8")
        compile(source, MODEL_FILE, "exec")
    except OSError as error:
        raise InputError(
            f"cannot read {folder / MODEL_FILE}: {error.strerror}"
        ) from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{folder / MODEL_FILE} is no Python: {error}") from error
    if "quantization" in _config(folder / CONFIG_FILE):
        raise InputError(
            f"the weights of {folder} are quantized, and so not PyTorch's: verify it before it is quantized"
        )
    return program.with_source(source, _differing(program, open_checkpoint(folder)))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _differing(program: Program, checkpoint: Checkpoint) -> dict[str, mx.array | None]:
    """The arrays of the folder that are not those of the model, in the dtypes of the model."""
    own, eps = program.arrays(), _widest(checkpoint)
    found: dict[str, mx.array | None] = dict.fromkeys(own.keys() - checkpoint.keys())
    for key, info in checkpoint.tensors.items():
        array = from_numpy(checkpoint[key], bfloat16=info.dtype == "BF16")
        if key not in own:
            found[key] = array
            continue
        array = array.astype(own[key].dtype)
        if array.shape != own[key].shape or not _close(array, own[key], eps):
            found[key] = array
    return found


def _close(one: mx.array, other: mx.array, eps: float) -> bool:
    a, b = mlx_to_numpy(one), mlx_to_numpy(other)
    if a.dtype.kind not in "fc":
        return np.array_equal(a, b)
    return bool(np.allclose(a, b, max(eps, 1e-6), 1e-8, equal_nan=True))


def _widest(checkpoint: Checkpoint) -> float:
    return max(
        (HALF.get(i.dtype, 0.0) for i in checkpoint.tensors.values()), default=0.0
    )
