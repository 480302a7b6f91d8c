"""The certificate of a folder: small recorded inputs, and what PyTorch returned for them.

With it `python model_mlx.py --selftest` proves the port where there is no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_flatten
from torch.utils._pytree import tree_map_only

from torch2mlx.arrays import from_numpy
from torch2mlx.capture.evaluation import evaluating
from torch2mlx.emit.interface import interface
from torch2mlx.emit.syntax import dtype_name
from torch2mlx.errors import InputError
from torch2mlx.lower.registry import DTYPES
from torch2mlx.review.record import InputRecord
from torch2mlx.saving import CERTIFICATE_FILE, Output
from torch2mlx.verify.compare import (
    KINDS,
    Tolerance,
    compare_values,
    mlx_to_numpy,
    paired,
    tolerance_for,
    torch_to_numpy,
)
from torch2mlx.verify.sides import mlx_inputs, run_mlx, run_torch, to_mlx
from torch2mlx.verify.state import State
from torch2mlx.weights import safetensors

if TYPE_CHECKING:
    from torch2mlx.api import Program

ABSOLUTE, RELATIVE = 1e-4, 1e-3
EPS = {"F16": 2.0**-10, "BF16": 2.0**-7}
HALF_ROUNDINGS = 8  # of the largest value, as for models that compute in half precision
NAMES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.float32: "F32",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.complex64: "C64",
}


class Certificate:
    """Inputs and outputs to record.

    Args:
        program: The compiled model.
        output: The weights that its folder gets.

    Raises:
        InputError: There is nothing to prove: the generated model does not return what PyTorch does, or
            cannot (random outputs, quantized weights, no values).

    Attributes:
        arrays: Key -> array: `input.x`, `output.0`, ...
        limits: Key of an output -> how large a difference is allowed.
    """

    def __init__(self, program: Program, output: Output):
        if program.report.stubs:
            names = ", ".join(program.report.stubs)
            raise InputError(f"no certificate before {names} is filled in")
        if output.quantized:
            raise InputError(
                "no certificate: quantized weights are not those of PyTorch, and so are the outputs"
            )
        self.arrays: dict[str, mx.array] = {}
        self.limits: dict[str, float] = {}
        captured = program.captured
        tensors = [item.example for item in captured.inputs]
        keys = [f"input.{item.key}" for item in input_records(program)]
        with evaluating(program.model):
            self.arrays |= zip(keys, mlx_inputs(program, tensors), strict=True)
            module = program.load(written_arrays(output))
            got = run_mlx(module, program, tensors)
            runs = []
            for seed in (0, 1):
                with State(program).kept():
                    result = run_torch(program.model, captured, tensors, seed)
                    runs.append(tree_map_only(torch.Tensor, torch.clone, result))
        tolerance = tolerance_for(captured, ABSOLUTE, RELATIVE)
        self._record(program, (runs[0], runs[1], got), _wider(tolerance, output))
        if not self.limits:
            raise InputError("no certificate: the model returns nothing to compare")

    def _record(
        self, program: Program, results: tuple[Any, Any, Any], tolerance: Tolerance
    ) -> None:
        want, again, got = results
        keys = [key for key, _ in tree_flatten({"output": got})]
        pairs = list(paired(want, got, ""))
        repeated = [other for _, other, _ in paired(again, got, "")]
        outputs = program.outlined.model.outputs
        if not len(keys) == len(pairs) == len(repeated) == len(outputs):
            raise InputError("no certificate: the outputs have another structure")
        for key, (_, y, x), other, node in zip(
            keys, pairs, repeated, outputs, strict=True
        ):
            # What is random or empty proves nothing
            if not isinstance(y, torch.Tensor) or not y.numel() or not _equal(y, other):
                continue
            perm = node.meta.get("perm") if isinstance(node, torch.fx.Node) else None
            y = (y.permute(perm) if perm else y).detach()
            if not isinstance(x, mx.array) or tuple(x.shape) != tuple(y.shape):
                raise InputError(f"no certificate: {key} has another shape")
            expected, found = torch_to_numpy(y), mlx_to_numpy(x)
            if KINDS[expected.dtype.kind] != KINDS[found.dtype.kind]:
                raise InputError(f"no certificate: {key} has another kind of dtype")
            shape = tuple(y.shape)
            error = compare_values(key, shape, expected, found, tolerance)
            if not error.ok:
                raise InputError(f"no certificate, since the port is wrong: {error}")
            self.arrays[key] = to_mlx(y).astype(x.dtype)
            self.limits[key] = error.allowed

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        tensors = [(k, NAMES[a.dtype], tuple(a.shape)) for k, a in self.arrays.items()]
        limits = {key: repr(float(limit)) for key, limit in self.limits.items()}
        safetensors.write(
            folder / CERTIFICATE_FILE,
            tensors,
            lambda key: _carried(self.arrays[key]),
            {"format": "mlx", **limits},
        )


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(other, torch.Tensor) or torch.equal(one, other):
        return isinstance(other, torch.Tensor)
    inexact = one.is_floating_point() and one.shape == other.shape
    return inexact and bool(torch.isclose(one, other, 0, 0, equal_nan=True).all())


def _wider(tolerance: Tolerance, output: Output) -> Tolerance:
    """Wider where the weights are stored in half precision."""
    eps = max((EPS.get(dtype, 0.0) for _, dtype, _ in output.tensors), default=0.0)
    return Tolerance(
        max(tolerance.absolute, eps), max(tolerance.relative, HALF_ROUNDINGS * eps)
    )


def written_arrays(output: Output) -> dict[str, mx.array]:
    """The arrays that a folder gets, as MLX loads them."""
    return {
        key: from_numpy(output.arrays[key], bfloat16=dtype == "BF16")
        for key, dtype, _ in output.tensors
    }


def _carried(array: mx.array) -> np.ndarray[Any, Any]:
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def input_records(program: Program) -> list[InputRecord]:
    """The arrays that the generated model takes, in order; without values where there are none."""
    captured, model = program.captured, program.outlined.model
    items = {item.name: item for item in captured.inputs}
    names = interface(model, captured).names
    records: list[InputRecord] = []
    for name, node in zip(names, model.inputs, strict=True):
        item = items[str(node.target)]
        tensor, perm = item.example.detach(), node.meta.get("perm")
        shape = tuple((tensor.permute(perm) if perm else tensor).shape)
        dtype = dtype_name(DTYPES[tensor.dtype])
        low = high = 0
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        if whole and tensor.numel() and not tensor.is_meta:
            low, high = int(tensor.min()), int(tensor.max())
        key = ".".join([name, *map(str, item.path)])
        records.append(InputRecord(key, shape, dtype, low, high))
    return records
