"""What kind of fault a difference comes from, judged by the arrays at the place where it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn
import numpy as np
import torch
import torch.fx
from mlx.utils import tree_flatten

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.interpret import array_of
from torch2mlx.outline.scopes import below
from torch2mlx.verify.compare import (
    FLOATS,
    KINDS,
    Array,
    mlx_to_numpy,
    torch_to_numpy,
)
from torch2mlx.verify.generated import Generated
from torch2mlx.verify.sides import to_mlx

if TYPE_CHECKING:
    from torch2mlx.api import Program

# (class, evidence); the classes are layout, precision, mask, dtype, state, or "" for another one
Cause = tuple[str, str]
UNKNOWN: Cause = ("", "")
MASKING = (
    "mask",
    "where",
    "dot_product_attention",
    "logical_not",
    "bitwise_not",
    "tril",
    "triu",
)
# Relative to the norm of what PyTorch computes: an epsilon, an approximation, a rounding
CLOSE = 0.1


def cause_of(
    want: Sequence[torch.Tensor], got: Sequence[mx.array], code: Sequence[str]
) -> Cause:
    """The class of a fault by what a module or an operator returns.

    Args:
        want: The arrays of PyTorch.
        got: Those of MLX.
        code: Names of the operators, and the generated code, at that place.
    """
    masked = any(word in text.lower() for text in code for word in MASKING)
    for y, x in zip(want, got, strict=False):
        expected, found = torch_to_numpy(y), mlx_to_numpy(x)
        cause = (
            _dtype(y, x, expected, found)
            or _layout(expected, found)
            or _mask(expected, found, masked)
            or _precision(expected, found)
        )
        if cause is not None:
            return cause
    if masked and want:
        return "mask", "the code there works with a mask"
    return UNKNOWN


def _dtype(y: torch.Tensor, x: mx.array, expected: Array, found: Array) -> Cause | None:
    wanted = FLOATS.get(y.dtype)
    same_kind = KINDS[expected.dtype.kind] == KINDS[found.dtype.kind]
    if (wanted is None and same_kind) or wanted == x.dtype:
        return None
    return "dtype", f"it is {x.dtype}, not {y.dtype}"


def _layout(expected: Array, found: Array) -> Cause | None:
    if expected.size != found.size or expected.size < 2 or expected.dtype == bool:
        return None
    if _same_values(expected, found):
        shapes = f"[{', '.join(map(str, found.shape))}]"
        return "layout", f"the values are PyTorch's, at other places of {shapes}"
    return None


def _same_values(expected: Array, found: Array) -> bool:
    if KINDS[expected.dtype.kind] == "complex":
        return False
    one, other = np.sort(expected, axis=None), np.sort(found, axis=None)
    if len(np.unique(one)) < 2:
        return False
    near = np.allclose(one, other, 1e-4, 1e-6, equal_nan=True)
    placed = expected.shape == found.shape
    return near and not (placed and np.allclose(expected, found, 1e-3, 1e-5))


def _mask(expected: Array, found: Array, masked: bool) -> Cause | None:
    if expected.dtype == bool and expected.shape == found.shape:
        if np.array_equal(expected, ~found):
            return "mask", "it is the other way round"
        return "mask", "it lets other positions through"
    if masked and _distance(expected, found) > CLOSE / 5:
        return "mask", "the code there works with a mask, and the difference is large"
    return None


def _precision(expected: Array, found: Array) -> Cause | None:
    distance = _distance(expected, found)
    if distance <= CLOSE:
        return (
            "precision",
            f"off by {distance:.1e} of the norm: an epsilon, an approximation or a rounding",
        )
    if np.isfinite(expected).all() and not np.isfinite(found).all():
        return "precision", "MLX gives NaN or infinity where PyTorch does not"
    return None


def _distance(expected: Array, found: Array) -> float:
    """The norm of the difference, relative; of arrays of the same size stored alike."""
    candidates = [expected]
    if expected.ndim >= 3:
        candidates.append(np.moveaxis(expected, 1, -1))
    distances = [
        float(np.linalg.norm(c - found) / (np.linalg.norm(c) or 1.0))
        for c in candidates
        if c.shape == found.shape and c.dtype.kind in "fc"
    ]
    return min((d for d in distances if np.isfinite(d)), default=np.inf)


def weights_cause(
    program: Program,
    model: mlx.nn.Module,
    path: str,
    modules: Mapping[str, Generated],
) -> Cause | None:
    """Whether the arrays below a module are those of PyTorch, as the lowered graph takes them.

    Args:
        program: The compiled model.
        model: The generated model, loaded.
        path: The module's path in PyTorch.
        modules: What each module became.
    """
    held: dict[str, Any] = dict(tree_flatten(model.parameters()))
    keys: dict[str, Weight] = {}
    inside: list[str] = []
    for name, weight in program.outlined.weights.items():
        owner, _, attribute = name.rpartition(".")
        if owner in modules:
            key = f"{modules[owner].key}.{attribute}".lstrip(".")
            keys[key] = weight
            if not path or owner == path or below(owner, path):
                inside.append(key)
    for key in inside:
        if key in held and not _equal(held[key], _expected(program, keys[key])):
            return _wrong_array(program, key, held[key], keys)
    return None


def _expected(program: Program, weight: Weight) -> mx.array:
    tensors = program.captured.tensors
    arrays = {source: to_mlx(tensors[source]) for source in weight.sources}
    return array_of(weight, arrays)


def _wrong_array(
    program: Program, key: str, array: mx.array, keys: Mapping[str, Weight]
) -> Cause:
    found, wanted = mlx_to_numpy(array), mlx_to_numpy(_expected(program, keys[key]))
    if found.size == wanted.size and _same_values(wanted, found):
        return "layout", f"the array {key} has PyTorch's values at other places"
    others = (
        k for k, weight in keys.items() if _equal(array, _expected(program, weight))
    )
    other = next(others, None)
    of = f", but those of {other}" if other else ""
    return "state", f"the array {key} does not have PyTorch's values{of}"


def _equal(one: mx.array, other: mx.array) -> bool:
    if one.shape != other.shape:
        return False
    a, b = mlx_to_numpy(one), mlx_to_numpy(other)
    if a.dtype.kind in "fc":
        return bool(np.allclose(a, b, 1e-5, 1e-7, equal_nan=True))
    return np.array_equal(a, b)
