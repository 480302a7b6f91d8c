"""Arrays that are computed from others when a checkpoint is converted: a list of calls of named operations.

    add       (0, 1)                    the sources are numbered first, then the results of the calls
    rsqrt     (2,)
    reshape   (3,)      (8, 1, 1)       what follows the operands are numbers
    multiply  (4, 0)                    the last result is the array

All of it is computed in double precision and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.weights.casting import FLOATS, widen

Array = NDArray[Any]
Shape = tuple[int, ...]
# (operation, operands, attribute, ...)
Call = tuple[Any, ...]
Expression = tuple[Call, ...]

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "clip": lambda x, low, high: np.clip(x, low, high),
    "cos": np.cos,
    "divide": np.divide,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": np.negative,
    "power": np.power,
    "reciprocal": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(0, x),
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "tanh": np.tanh,
}
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "max": np.max,
    "mean": np.mean,
    "min": np.min,
    "sum": np.sum,
}


def evaluate(
    expression: Expression, arrays: Sequence[Array], dtypes: Sequence[str]
) -> Array:
    """The array that an expression gives, in float64.

    Args:
        expression: The calls.
        arrays: The sources; bfloat16 as raw bits.
        dtypes: Their safetensors names.
    """
    values = [_wide(array, d) for array, d in zip(arrays, dtypes, strict=True)]
    with np.errstate(all="ignore"):
        for name, operands, *attributes in expression:
            values.append(_call(name, [values[i] for i in operands], *attributes))
    return values[-1]


def _wide(array: Array, dtype: str) -> Array:
    if dtype not in FLOATS:
        return array
    return (widen(array) if dtype == "BF16" else array).astype(np.float64)


def _call(name: str, operands: list[Array], *attributes: Any) -> Array:
    if name in ELEMENTWISE:
        return ELEMENTWISE[name](*operands, *attributes)
    if name in REDUCTIONS:
        return REDUCTIONS[name](operands[0], axis=attributes[0], keepdims=True)
    match name, attributes:
        case "number", (value,):
            return np.asarray(value, np.float64)
        case "full", (shape, value):
            return np.full(shape, value, np.float64)
        case "matmul", ():
            return operands[0] @ operands[1]
        case "concatenate", (axis,):
            return np.concatenate(operands, axis)
        case "reshape", (shape,):
            return operands[0].reshape(shape)
        case "transpose", (perm,):
            return operands[0].transpose(perm)
        case "slice", (axis, start, stop, step):
            return operands[0][(slice(None),) * axis + (slice(start, stop, step),)]
        case "take", (axis,):
            return np.take(operands[0], operands[1], axis)
        case _:
            raise AssertionError(name)


def shape_of(expression: Expression, shapes: Sequence[Shape]) -> Shape:
    """The shape of what an expression gives.

    Raises:
        ValueError: A call is unknown or does not fit the shapes of its operands.
    """
    known = list(shapes)
    for call in expression:
        try:
            name, operands, *attributes = call
            if not all(0 <= i < len(known) for i in operands):
                raise ValueError
            known.append(_shape(name, [known[i] for i in operands], *attributes))
        except (ValueError, TypeError, IndexError):
            raise ValueError(f"{call} does not fit the shapes {known}") from None
    return known[-1]


def _shape(name: str, shapes: list[Shape], *attributes: Any) -> Shape:
    if name in ELEMENTWISE:
        return np.broadcast_shapes(*shapes)
    first: Any = shapes[0] if shapes else ()
    others = shapes[1:]
    if name in REDUCTIONS:
        axes = _axes(attributes[0], len(first))
        return tuple(1 if a in axes else size for a, size in enumerate(first))
    match name, attributes:
        case "number", (int() | float(),):
            return ()
        case "full", (shape, int() | float()) if min(shape, default=0) >= 0:
            return tuple(shape)
        case "matmul", () if len(first) > 1 and first[-1] == others[0][-2]:
            batch = np.broadcast_shapes(first[:-2], others[0][:-2])
            return (*batch, first[-2], others[0][-1])
        case "concatenate", (axis,):
            _axes([axis], len(first))
            if len({(*s[:axis], 0, *s[axis + 1 :]) for s in shapes}) == 1:
                total = sum(shape[axis] for shape in shapes)
                return (*first[:axis], total, *first[axis + 1 :])
        case "reshape", (shape,) if math.prod(shape) == math.prod(first):
            return tuple(shape)
        case "transpose", (perm,) if sorted(perm) == list(range(len(first))):
            return tuple(first[axis] for axis in perm)
        case "slice", (axis, start, stop, step) if step > 0:
            size = len(range(*slice(start, stop, step).indices(first[axis])))
            return (*first[:axis], size, *first[axis + 1 :])
        case "take", (axis,):
            _axes([axis], len(first))
            return (*first[:axis], *others[0], *first[axis + 1 :])
        case _:
            pass
    raise ValueError


def _axes(axes: Sequence[int], ndim: int) -> set[int]:
    if not all(0 <= axis < ndim for axis in axes):
        raise ValueError
    return set(axes)
