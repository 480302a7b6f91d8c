"""One spec string -> one model with example inputs.

torchvision:NAME   timm:NAME   hf:DIR
pkg.mod:NAME   path/file.py:NAME
FILE.pt2   FILE.pt (.pth, .pkl, .bin)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only

from torch2mlx.capture.valueless import device_of
from torch2mlx.errors import InputError
from torch2mlx.source import archives, huggingface, libraries, python_code
from torch2mlx.source.dry_run import check_inputs
from torch2mlx.source.infer import infer, integer_limits
from torch2mlx.source.inputs import InputSpec, describe, fill, name_positions, parse_all
from torch2mlx.source.loaded import Example, Loaded
from torch2mlx.source.weights import with_weights

KINDS = (
    "torchvision:NAME, timm:NAME, hf:DIR, pkg.mod:NAME, path/file.py:NAME, FILE.pt2 "
    "or FILE.pt"
)
_SCHEMES = ("torchvision", "timm", "hf")


@dataclass(frozen=True)
class Source:
    """A model and example inputs for it.

    Attributes:
        model: The module, in evaluation mode and in main memory.
        args: Positional arguments of `forward`.
        kwargs: Keyword arguments of `forward`.
        program: The exported program, where the source is one.
        name: What the source calls the model; names the output folder.
        description: What the inputs are and how they were found, in one line.
        notes: What the user should know about the model, e.g. that its weights are random.
        files: Files to copy along with the result, by name.
        checkpoint: Where its weights lie on the disk, under the names of its state dict or of the option `conversion`.
        options: Options of `torch2mlx.compile` that the source asks for.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    program: ExportedProgram | None
    name: str
    description: str
    notes: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def load(
    spec: str,
    inputs: Sequence[str] = (),
    *,
    trust_pickle: bool = False,
    task: str | None = None,
    weights: Path | None = None,
    values: bool = True,
) -> Source:
    """Load the model that `spec` names and find inputs for it.

    Args:
        spec: One of the kinds of sources above.
        inputs: `--input` specs; without any, the inputs are inferred.
        trust_pickle: Accept sources whose loading can run code that they contain.
        task: Which head a transformers model gets, e.g. "text-classification".
        weights: A checkpoint that the model gets its weights from.
        values: Whether the model will be run. If not, weights of a transformers model that are put together
            from several of its folder may stay on the meta device.

    Raises:
        InputError: The source does not exist, does not work or holds no model; the checkpoint does
            not fit; an input spec is malformed or does not fit; or the inputs cannot be inferred.
    """
    if task is not None and not spec.startswith("hf:"):
        raise InputError(f"a task goes with hf:DIR alone, not with {spec}")
    # A typing error shows before a model is built
    specs = parse_all(inputs)
    loaded = _load(spec, trust_pickle, task, values)
    model = loaded.model
    if weights is not None:
        loaded = with_weights(loaded, weights)
    if loaded.program is None:
        model = _on_host(model)
    if specs and loaded.program is not None:
        raise InputError(f"{spec} brings its inputs along; leave out --input")
    if specs:
        args, kwargs, description = _given(model, specs)
    elif loaded.example is not None:
        args, kwargs, description = loaded.example(model)
    else:
        args, kwargs, description = infer(model)
    args, kwargs = _beside(model, (args, kwargs))
    return Source(
        model,
        args,
        kwargs,
        loaded.program,
        loaded.name,
        description,
        loaded.notes,
        loaded.files,
        loaded.checkpoint,
        loaded.options,
    )


def _load(spec: str, trust_pickle: bool, task: str | None, values: bool) -> Loaded:
    scheme, colon, rest = spec.partition(":")
    suffix = Path(spec).suffix
    if colon and scheme in _SCHEMES:
        if not rest:
            raise InputError(f"{spec}: what comes after the colon is missing")
        if scheme == "hf":
            return huggingface.from_folder(rest, task, trust_pickle, values)
        if scheme == "timm":
            return libraries.from_timm(rest)
        return libraries.from_torchvision(rest)
    if suffix == ".pt2":
        return archives.from_program(spec, trust_pickle)
    if suffix in archives.PICKLES:
        return archives.from_pickle(spec, trust_pickle)
    path, colon, _ = spec.rpartition(":")
    if colon and path.endswith(".py"):
        return python_code.from_file(spec)
    if colon:
        return _from_module(spec, scheme, rest)
    raise InputError(_no_source(spec, suffix))


def _from_module(spec: str, scheme: str, rest: str) -> Loaded:
    close = difflib.get_close_matches(scheme, _SCHEMES, n=1, cutoff=0.75)
    try:
        return python_code.from_module(spec)
    except InputError as error:
        if not close or "there is no module" not in str(error):
            raise
        raise InputError(f"{error}; did you mean {close[0]}:{rest}?") from None


def _no_source(spec: str, suffix: str) -> str:
    if suffix == ".py":
        return f"{spec}: say which model of the file, as in {spec}:NAME"
    if suffix in (".safetensors", ".ckpt", ".gguf", ".onnx"):
        return (
            f"{spec} is no source: a {suffix} file does not hold the model's code; "
            f"a source is {KINDS}"
        )
    if (Path(spec) / "config.json").is_file():
        return f"{spec} is a folder; did you mean hf:{spec}?"
    return f"{spec!r} is no source; a source is {KINDS}"


def _on_host(model: nn.Module) -> nn.Module:
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    if devices - {"cpu", "meta"}:
        model = model.cpu()
    return model.eval()


def _beside(model: nn.Module, inputs: Any) -> Any:
    device = device_of(model)
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), inputs)


def _given(model: nn.Module, specs: Sequence[InputSpec]) -> Example:
    names = name_positions(model, specs)
    drawn = [spec.dtype for spec in specs if spec.value is None]
    needs_limits = not all(dtype.is_floating_point for dtype in drawn)
    args, kwargs = fill(specs, names, integer_limits(model) if needs_limits else {})
    lines = [
        describe(name, spec.shape, spec.dtype)
        for name, spec in zip(names, specs, strict=True)
    ]
    check_inputs(model, args, kwargs, ", ".join(lines))
    return args, kwargs, f"{'; '.join(lines)}, as given"
