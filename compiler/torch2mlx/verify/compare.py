"""Compare what the two models return: structure, shapes, dtypes, values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray

from torch2mlx.capture import Captured
from torch2mlx.verify.result import OutputError

Array = NDArray[Any]

# MLX keeps float64 as float32 and complex128 as complex64
FLOATS = {
    torch.float64: mx.float32,
    torch.float32: mx.float32,
    torch.float16: mx.float16,
    torch.bfloat16: mx.bfloat16,
}
KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}


@dataclass(frozen=True)
class Tolerance:
    """How far values may be apart: `absolute + relative * max|value|`; integers are exact."""

    absolute: float
    relative: float

    def allowed(self, largest: float) -> float:
        """The largest difference that is allowed beside values of at most `largest`."""
        return self.absolute + self.relative * largest


def tolerance_for(captured: Captured, absolute: float, relative: float) -> Tolerance:
    """The tolerance for a model: wider where it computes in half precision.

    A rounding error of float16 or bfloat16 is one eps of a value and adds up over the layers: 8 eps
    of the largest value are allowed, whatever dtype the output has.
    """
    eps = [torch.finfo(dtype).eps for dtype in _float_dtypes(captured)]
    widest = max(eps, default=0.0)
    if widest <= torch.finfo(torch.float32).eps:
        return Tolerance(absolute, relative)
    return Tolerance(max(absolute, widest), max(relative, 8 * widest))


def _float_dtypes(captured: Captured) -> set[torch.dtype]:
    values = (node.meta.get("val") for node in captured.graph.nodes)
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return {tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point}


def compare_outputs(
    want: Any, got: Any, perms: Sequence[Any], tolerance: Tolerance
) -> list[OutputError]:
    """Compare the result of PyTorch with that of the generated model.

    Args:
        want: What PyTorch returns.
        got: What the generated model returns.
        perms: For each leaf, the permutation of PyTorch's axes in which it is stored, or None.
        tolerance: How far values may be apart.
    """
    found: list[OutputError] = []
    pairs = list(paired(want, got, ""))
    for index, (label, expected, actual) in enumerate(pairs):
        label = label or "output"
        if isinstance(actual, StructureError):
            found.append(_failed(label, (), str(actual)))
        elif isinstance(expected, torch.Tensor):
            perm = perms[index] if len(perms) == len(pairs) else None
            found.append(compare_leaf(label, expected, actual, perm, tolerance))
        elif isinstance(actual, mx.array) or actual != expected:
            found.append(
                _failed(label, (), f"is {_kind(actual)} instead of {expected!r}")
            )
        else:
            found.append(OutputError(label, (), 0.0, 0.0, 0.0, True))
    return found


class StructureError(Exception):
    """The generated model returns other containers than PyTorch."""


def paired(want: Any, got: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Label, PyTorch's leaf and MLX's leaf; a ModelOutput is a dict, a named tuple a tuple."""
    if not isinstance(want, Mapping | tuple | list):
        yield prefix, want, got
    elif not _same_container(want, got):
        yield prefix, want, StructureError(f"is {_kind(got)} instead of {_kind(want)}")
    else:
        keys = want if isinstance(want, Mapping) else range(len(want))
        for key in keys:
            first = not prefix and isinstance(key, str)
            label = key if first else f"{prefix}[{key!r}]"
            yield from paired(want[key], got[key], label)  # type: ignore[index]


def _same_container(want: Any, got: Any) -> bool:
    if isinstance(want, Mapping):
        return isinstance(got, dict) and list(got) == list(want)
    kind = list if isinstance(want, list) else tuple
    return type(got) is kind and len(got) == len(want)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {'list' if isinstance(value, list) else 'tuple'} of {len(value)}"
    return "an array" if isinstance(value, mx.array | torch.Tensor) else repr(value)


def compare_leaf(
    label: str, want: torch.Tensor, got: Any, perm: Any, tolerance: Tolerance
) -> OutputError:
    """Compare one output tensor; `perm` is how PyTorch's axes are stored in MLX."""
    shape = tuple(want.shape)
    stored = want.permute(perm) if perm else want
    if not isinstance(got, mx.array):
        return _failed(label, shape, f"is {_kind(got)} instead of an array")
    if tuple(got.shape) != tuple(stored.shape):
        return _failed(
            label, shape, f"has shape {list(got.shape)}, not {list(stored.shape)}"
        )
    expected, actual = torch_to_numpy(stored), mlx_to_numpy(got)
    if not _same_dtype(want.dtype, got.dtype, expected, actual):
        return _failed(label, shape, f"has dtype {got.dtype}, not {want.dtype}")
    return compare_values(label, shape, expected, actual, tolerance)


def compare_values(
    label: str, shape: tuple[int, ...], want: Array, got: Array, tolerance: Tolerance
) -> OutputError:
    """Compare two arrays of the same shape and class of dtype."""
    constant = want.size > 1 and _is_constant(want)
    if want.dtype.kind in "biu":
        error = float(np.max(want != got, initial=0))
        if error and want.dtype.kind != "b":
            error = float(
                np.abs(want.astype(np.float64) - got.astype(np.float64)).max()
            )
        why = f"differs by {error:.3g}, it must be exact" if error else ""
        largest = float(np.abs(want.astype(np.float64)).max(initial=0))
        return OutputError(label, shape, error, largest, 0.0, not error, why, constant)
    finite = np.isfinite(want)
    largest = float(np.abs(want[finite]).max(initial=0))
    allowed = tolerance.allowed(largest)
    odd = ~finite
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(
        want[odd], got[odd], equal_nan=True
    ):
        why = "has NaN or infinity at other places"
        return OutputError(label, shape, np.inf, largest, allowed, False, why, constant)
    with np.errstate(over="ignore"):
        error = float(np.abs(want[finite] - got[finite]).max(initial=0))
    ok = error <= allowed
    why = "" if ok else f"differs by {error:.3g}, allowed are {allowed:.1e}"
    return OutputError(label, shape, error, largest, allowed, ok, why, constant)


def _is_constant(array: Array) -> bool:
    """Whether all elements are equal, or none is finite."""
    if array.dtype.kind in "fc" and not np.isfinite(array).any():
        return True
    return bool((array == array.flat[0]).all())


def _failed(label: str, shape: tuple[int, ...], why: str) -> OutputError:
    return OutputError(label, shape, np.inf, 0.0, 0.0, False, why)


def _same_dtype(
    torch_dtype: torch.dtype, mlx_dtype: mx.Dtype, want: Array, got: Array
) -> bool:
    """Floats have PyTorch's very dtype; integers may be narrower."""
    if torch_dtype in FLOATS:
        return mlx_dtype == FLOATS[torch_dtype]
    return KINDS[want.dtype.kind] == KINDS[got.dtype.kind]


def torch_to_numpy(tensor: torch.Tensor) -> Array:
    """A tensor as numpy array; bfloat16 and float64 as float32."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype in (torch.bfloat16, torch.float64):
        tensor = tensor.float()
    return (tensor.to(torch.complex64) if tensor.is_complex() else tensor).numpy()


def mlx_to_numpy(array: mx.array) -> Array:
    """An MLX array as numpy array; bfloat16 as float32."""
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)


def deviation(
    want: Sequence[torch.Tensor], got: Sequence[mx.array], tolerance: Tolerance
) -> float | None:
    """The largest difference of arrays that agree with no tensor of their shape; None if all agree.

    Which array stands for which tensor, and whether it is stored channels-last, is not known: each is
    compared with all that it can be. Arrays that no tensor fits are not compared.
    """
    worst: float | None = None
    for array in got:
        actual = mlx_to_numpy(array)
        errors: list[OutputError] = []
        for expected in _candidates(want, actual):
            errors.append(compare_values("", actual.shape, expected, actual, tolerance))
        if errors and not any(error.ok for error in errors):
            worst = max(worst or 0.0, min(error.max_error for error in errors))
    return worst


def _candidates(tensors: Sequence[torch.Tensor], got: Array) -> Iterator[Array]:
    for tensor in tensors:
        rank = tensor.ndim
        perms = [tuple(range(rank))]
        if rank >= 3:
            perms.append((0, *range(2, rank), 1))
        for perm in perms:
            stored = torch_to_numpy(tensor.permute(perm))
            if (
                stored.shape == got.shape
                and KINDS[stored.dtype.kind] == KINDS[got.dtype.kind]
            ):
                yield stored
