"""Axes, indices and dtypes, as several families of lowerings need them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import mlx.core
import torch
from torch._ops import OpOverload

from torch2mlx.ir import intrinsics
from torch2mlx.lower.facade import Refuse, Traced
from torch2mlx.lower.registry import DTYPES, lowers, schema_name

FULL = slice(None)
SMALL_INTEGERS = {
    mlx.core.int8,
    mlx.core.int16,
    mlx.core.uint8,
    mlx.core.uint16,
    mlx.core.uint32,
}


def same(size: Any, other: Any) -> bool:
    """Whether two sizes are equal for every input that the capture allows."""
    try:
        return bool(size == other)
    except Refuse:
        return False


def same_shape(shape: Any, other: Any) -> bool:
    """Whether two shapes are equal for every input that the capture allows."""
    return len(shape) == len(other) and all(map(same, shape, other))


def empty(shape: Any) -> bool:
    """Whether an array of this shape has no elements, for every input that the capture allows."""
    return any(same(size, 0) for size in shape)


def at(ndim: int, axis: int, part: Any) -> Any:
    """The index that applies `part` to one axis of an array with `ndim` axes."""
    axis %= ndim
    if axis == 0:
        return part
    if axis == ndim - 1 and ndim > 2:
        return (..., part)
    return (*[FULL] * axis, part)


def axis_of(dim: Any, keepdim: bool = False) -> dict[str, Any]:
    """The keyword arguments of an MLX reduction; PyTorch's empty list means all axes."""
    arguments: dict[str, Any] = {}
    if isinstance(dim, list | tuple):
        if dim:
            arguments["axis"] = dim[0] if len(dim) == 1 else tuple(dim)
    elif dim is not None:
        arguments["axis"] = dim
    if keepdim:
        arguments["keepdims"] = True
    return arguments


def torch_dtype(x: Any) -> mlx.core.Dtype:
    """The MLX dtype that stands for PyTorch's dtype of `x`; MLX may keep narrower integers."""
    value = x.node.meta.get("val") if isinstance(x, Traced) else None
    return DTYPES[value.dtype] if isinstance(value, torch.Tensor) else x.dtype


def is_float(x: Any) -> bool:
    """Whether an array's or number's dtype is a floating-point one."""
    if isinstance(x, Traced) and not isinstance(x.hint, int | float):
        return mlx.core.issubdtype(x.dtype, mlx.core.floating)
    return isinstance(x, float)


def widened(x: Any) -> Any:
    """`x` as PyTorch accumulates it: integers as int64; counts of booleans fit MLX's int32."""
    if x.dtype in SMALL_INTEGERS or (x.dtype == mlx.core.int32 and not _from_bool(x)):
        return x.astype(mlx.core.int64)
    return x


def _from_bool(x: Any) -> bool:
    """Whether integers are converted booleans."""
    if not isinstance(x, Traced) or x.node.target is not intrinsics.astype:
        return False
    source: Any = x.node.args[0]
    return source.meta["hint"].dtype == mlx.core.bool_


def condition(x: Any) -> Any:
    """The booleans that integers are converted from; `x` where they are not."""
    return x.tracer.proxy(x.node.args[0]) if _from_bool(x) else x


def only_first(x: Any) -> None:
    """Refuse a call with the operand `x` whose results but the first are used: they are for gradients."""
    call = x.tracer.origin if isinstance(x, Traced) else None
    if call is not None and any(
        user.args[1] != 0 and user.users for user in call.users
    ):
        raise Refuse("only its first result is mapped")


def lowers_any(*overloads: OpOverload) -> Callable[[Callable[..., Any]], Any]:
    """`lowers` for overloads that lack some of the parameters, which keep their defaults then."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters
        left = set(parameters)
        for overload in overloads:
            schema = {schema_name(a.name) for a in overload._schema.arguments}
            names = [name for name in parameters if name in schema]
            left -= set(names)
            lowers(overload)(_restricted(function, names))
        if left:
            raise TypeError(f"{overloads} have no arguments {sorted(left)}")
        return function

    return declare


def _restricted(function: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return function(**dict(zip(names, args, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
