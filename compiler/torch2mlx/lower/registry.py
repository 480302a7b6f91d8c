"""The two mapping tables: ATen overload -> lowering, and ATen overload -> layer.

An entry is a plain function over the facade's `mx` and `nn`. Its parameters are the ATen schema's, by
name (`x` stands for `self` and `input`); this is checked when it is declared. An argument of the schema
that the function does not take must have its default value, or the call is refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core
import torch
from torch._ops import OpOverload

from torch2mlx.lower.facade import Refuse, Traced, helpers, mx, nn

# Arguments without a meaning in MLX: it has one device, one memory format, and no autograd views.
IGNORED = {"device", "layout", "pin_memory", "memory_format", "non_blocking", "copy"}

DTYPES: dict[torch.dtype, mlx.core.Dtype] = {
    torch.float32: mlx.core.float32,
    torch.float16: mlx.core.float16,
    torch.bfloat16: mlx.core.bfloat16,
    torch.float64: mlx.core.float32,  # Metal has no float64
    torch.int8: mlx.core.int8,
    torch.int16: mlx.core.int16,
    torch.int32: mlx.core.int32,
    torch.int64: mlx.core.int64,
    torch.uint8: mlx.core.uint8,
    torch.uint16: mlx.core.uint16,
    torch.uint32: mlx.core.uint32,
    torch.uint64: mlx.core.uint64,
    torch.bool: mlx.core.bool_,
    torch.complex64: mlx.core.complex64,
    torch.complex128: mlx.core.complex64,
}


def mlx_dtype(dtype: torch.dtype) -> mlx.core.Dtype:
    """The MLX dtype for one of PyTorch's.

    Raises:
        Refuse: MLX has none.
    """
    if dtype not in DTYPES:
        raise Refuse(f"MLX has no dtype for {dtype}")
    return DTYPES[dtype]


# What MLX or a lowering raises for arguments that it cannot take
FAILURES = (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)


@dataclass(frozen=True)
class Lowering:
    """One entry of a mapping table; it is called with its parameters by position.

    Attributes:
        function: MLX code over the facade.
        parameters: Its parameter names, in order.
    """

    function: Callable[..., Any]
    parameters: tuple[str, ...]


OPS: dict[OpOverload, Lowering] = {}
LAYERS: dict[OpOverload, Lowering] = {}
MODULES: dict[type[torch.nn.Module], Callable[..., Any]] = {}


def lowers(
    *overloads: OpOverload,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the MLX code of these ATen overloads."""
    return lambda function: _register(OPS, overloads, function)


def layer(
    *targets: OpOverload | type[torch.nn.Module],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the `mlx.nn` layer that these overloads are when their weights belong to one module.

    The function builds the layer, assigns its weights and calls it. It raises `Decline` where the
    arguments do not fit the layer; the op table is asked then.

    For a module class the function takes the module, then the arguments of `forward`. The module's
    arrays are arrays of the generated model, all its other attributes are its own. Subclasses are not
    meant, since they may do something else.
    """
    overloads = tuple(t for t in targets if isinstance(t, OpOverload))
    classes = [t for t in targets if not isinstance(t, OpOverload)]

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for cls in classes:
            if cls in MODULES:
                raise TypeError(f"{cls.__qualname__} is mapped twice")
            MODULES[cls] = function
        return _register(LAYERS, overloads, function)

    return declare


def rename(table: Mapping[OpOverload, str]) -> None:
    """Declare operators that MLX has with the same positional arguments: `{aten.sin.default: "mx.sin"}`."""
    spaces = {"mx": mx, "nn": nn, "helpers": helpers}
    for overload, name in table.items():
        space, _, attribute = name.partition(".")
        function = getattr(spaces[space], attribute)
        names = tuple(
            schema_name(a.name)
            for a in overload._schema.arguments
            if a.name not in IGNORED
        )
        _insert(OPS, overload, Lowering(function, names))


def schema_name(name: str) -> str:
    """The name under which lowerings take a schema argument."""
    return "x" if name in ("self", "input") else name


def _register(
    table: dict[OpOverload, Lowering],
    overloads: tuple[OpOverload, ...],
    function: Callable[..., Any],
) -> Callable[..., Any]:
    parameters = tuple(inspect.signature(function).parameters)
    for overload in overloads:
        known = {schema_name(a.name) for a in overload._schema.arguments}
        unknown = set(parameters) - known
        if unknown:
            raise TypeError(f"{overload} has no arguments {sorted(unknown)}")
        _insert(table, overload, Lowering(function, parameters))
    return function


def _insert(
    table: dict[OpOverload, Lowering], overload: OpOverload, entry: Lowering
) -> None:
    if overload in table:
        raise TypeError(f"{overload} is mapped twice")
    table[overload] = entry


def bind(
    overload: OpOverload, entry: Lowering, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the lowering's parameter names, dtypes as MLX's.

    Raises:
        Refuse: An argument that the lowering does not take has another value than its default.
    """
    bound: dict[str, Any] = {}
    schema = overload._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
    for argument in schema:
        name = schema_name(argument.name)
        default = _default(argument)
        value = given.get(argument.name, default)
        if name in entry.parameters:
            bound[name] = mlx_dtype(value) if isinstance(value, torch.dtype) else value
        elif name not in IGNORED and not _is_default(value, default):
            raise Refuse(f"argument `{argument.name}`={value!r} is not mapped")
    return bound


def _default(argument: Any) -> Any:
    """The default value of an argument; a schema has the number 4 for `torch.int64`."""
    value = argument.default_value
    return torch.int64 if argument.name == "dtype" and value == 4 else value


def _is_default(value: Any, default: Any) -> bool:
    return not isinstance(value, Traced) and bool(value == default)
