"""The weight plan of an outlined model, and PyTorch tensors as the plan's source arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from torch2mlx.capture import Captured
from torch2mlx.emit.attributes import Attributes
from torch2mlx.errors import InputError
from torch2mlx.ir.layer import Weight
from torch2mlx.outline import Outlined
from torch2mlx.outline.operands import Segment, invokes
from torch2mlx.weights.plan import Array, WeightEntry, WeightPlan

DTYPES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.complex128: "C64",
}

COUNTER = "a counter of PyTorch's BatchNorm, which MLX does not have"


def make_plan(outlined: Outlined, captured: Captured) -> WeightPlan:
    """What becomes of every tensor of the state dict."""
    keys = dict(_keys(outlined, outlined.model, "", ""))
    entries = []
    for path, weight in sorted(
        outlined.weights.items(), key=lambda item: keys[item[0]]
    ):
        entries.append(_entry(keys[path], weight, captured))
    used = {source for entry in entries for source in entry.sources}
    aliases = {
        alias: source
        for alias, source in captured.aliases.items()
        if source in used and alias in captured.persistent
    }
    unused = {
        key: _why_unused(key)
        for key in sorted(captured.persistent - used - aliases.keys())
    }
    constants = tuple(sorted(used - captured.persistent))
    return WeightPlan(tuple(entries), unused, aliases, constants)


def _why_unused(key: str) -> str:
    if key.endswith("num_batches_tracked"):
        return COUNTER
    return "no operator of the model reads it"


def _entry(key: str, weight: Weight, captured: Captured) -> WeightEntry:
    tensors = [captured.tensors[source] for source in weight.sources]
    dtypes = tuple(DTYPES[tensor.dtype] for tensor in tensors)
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = floats[0] if weight.expression else tensors[0].dtype
    return WeightEntry(
        key,
        weight.sources,
        DTYPES[dtype],
        tuple(tuple(tensor.shape) for tensor in tensors),
        weight.steps,
        weight.merge,
        # MLX's float64 does not run on GPUs
        target="F32" if dtype == torch.float64 else None,
        expression=weight.expression,
        dtypes=dtypes if len(set(dtypes)) > 1 else (),
    )


def _keys(
    outlined: Outlined, segment: Segment, path: str, key: str
) -> Iterator[tuple[str, str]]:
    """PyTorch's path of every array -> its key in the generated module."""
    spec = outlined.instances.class_of[id(segment)]
    attributes = Attributes(spec.template.attributes)
    for attribute, construct in spec.template.attributes.items():
        if construct.target is None:
            yield _joined(path, attribute), _joined(key, attributes.key(attribute))
    for item in segment.items:
        for invoke in invokes(item):
            inner = _joined(path, invoke.path)
            inner_key = _joined(key, attributes.key(invoke.path))
            if isinstance(invoke.callee, Segment):
                yield from _keys(outlined, invoke.callee, inner, inner_key)
            else:
                for name in invoke.callee.weights:
                    yield f"{inner}.{name}", f"{inner_key}.{name}"


def quantizable(outlined: Outlined) -> list[str]:
    """Paths of the layers of the generated module that have a quantized form."""
    found = (
        key.removesuffix(".weight")
        for key, owner in _owners(outlined, outlined.model, "")
        if hasattr(owner, "to_quantized")
    )
    return list(dict.fromkeys(found))


def _owners(
    outlined: Outlined, segment: Segment, key: str
) -> Iterator[tuple[str, type]]:
    """Each layer's path in the generated module and its class."""
    spec = outlined.instances.class_of[id(segment)]
    attributes = Attributes(spec.template.attributes)
    for item in segment.items:
        for invoke in invokes(item):
            inner = _joined(key, attributes.key(invoke.path))
            if isinstance(invoke.callee, Segment):
                yield from _owners(outlined, invoke.callee, inner)
            else:
                yield inner, invoke.callee.cls


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class StateDict(Mapping[str, Array]):
    """Tensors by state dict key as numpy arrays, each converted when it is asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = tensors

    def __getitem__(self, key: str) -> Array:
        return as_array(key, self._tensors[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def as_array(key: str, tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as the numpy array that carries it: a view where the dtype allows, bf16 as raw bits.

    Raises:
        InputError: The tensor is on the meta device: it has no values.
    """
    if tensor.device.type == "meta":
        raise InputError(
            f"weight {key!r} is on the meta device: it has no values to write"
        )
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    if tensor.dtype == torch.complex128:
        return tensor.to(torch.complex64).numpy()
    return tensor.numpy()
