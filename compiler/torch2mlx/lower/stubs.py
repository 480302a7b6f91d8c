"""Functions to fill in: what stands in generated code for an operator that nothing maps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core
import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture.provenance import source_line
from torch2mlx.ir.names import STUB
from torch2mlx.lower.facade import Traced
from torch2mlx.lower.registry import IGNORED, OPS, mlx_dtype

TYPES = {
    "Tensor": "mx.array",
    "SymInt": "int",
    "Scalar": "float",
    "ScalarType": "mx.Dtype",
}


@dataclass(eq=False)
class Stub:
    """A function that raises until its author writes it.

    Attributes:
        name: Its name in the generated file.
        overload: The operator that it stands for.
        parameters: Its parameters, with types and defaults.
        returns: The type of its result.
        lines: What its docstring says after the schema.
    """

    name: str
    overload: OpOverload
    parameters: list[str]
    returns: str
    lines: list[str] = field(default_factory=list)

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def schema(self) -> str:
        """The operator's schema, as PyTorch writes it."""
        return str(self.overload._schema)

    @property
    def docstring(self) -> str:
        """What its docstring says, as source text."""
        lines = [self.schema, "", *self.lines]
        text = "\n".join(line for long in lines for line in _wrapped(long))
        return text.replace("\\", "\\\\").replace('"', '\\"')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self.name} is a stub of {self.schema}")


class Stubs:
    """The stubs of one model, one for each overload."""

    def __init__(self) -> None:
        self.made: dict[OpOverload, Stub] = {}

    def of(self, node: torch.fx.Node, hint: str, args: Mapping[str, Any]) -> Stub:
        """The stub of an operator that is refused.

        Args:
            node: Its call.
            hint: Why it is refused.
            args: What it is called with.
        """
        overload: Any = node.target
        if overload not in self.made:
            self.made[overload] = self._stub(node, overload, hint, args)
        return self.made[overload]

    def _stub(
        self,
        node: torch.fx.Node,
        overload: OpOverload,
        hint: str,
        args: Mapping[str, Any],
    ) -> Stub:
        schema = overload._schema
        library, _, short = schema.name.partition("::")
        name = f"{STUB}{short}"
        if name in {stub.name for stub in self.made.values()}:
            name = f"{STUB}{library}_{short}_{schema.overload_name or 'default'}"
        place, _, code = source_line(node).partition(": ")
        lines = [f"Called at {Path(place).name}:", f"    {code}"] if place else []
        if overload in OPS:
            lines.append(f"It is a stub because {hint}.")
        arrays = [f"{k} {describe(v)}" for k, v in args.items() if describe(v)]
        lines.append(f"For the example inputs: {', '.join(arrays)}; the result is")
        lines.append(f"{_described(node.meta['val'])}.")
        parameters = [_parameter(a) for a in schema.arguments if a.name not in IGNORED]
        kinds = [_type(str(result.type)) for result in schema.returns]
        returns = kinds[0] if len(kinds) == 1 else f"tuple[{', '.join(kinds)}]"
        return Stub(name, overload, parameters, returns, lines)


def given(overload: OpOverload, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, up to the last that is given, dtypes as MLX's.

    Those without a meaning in MLX are left out.

    Raises:
        Refuse: MLX lacks a dtype among them.
    """
    schema = list(overload._schema.arguments)
    named = dict(zip((a.name for a in schema), args, strict=False)) | dict(kwargs)
    schema = [a for a in schema if a.name not in IGNORED]
    last = max((i for i, a in enumerate(schema) if a.name in named), default=-1)
    values = {a.name: named.get(a.name, a.default_value) for a in schema[: last + 1]}
    return {
        name: mlx_dtype(value) if isinstance(value, torch.dtype) else value
        for name, value in values.items()
    }


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line, 82, subsequent_indent=indent + "    ", break_long_words=False
    ) or [""]


def describe(value: Any) -> str:
    """`float32 [2, 5]` for an array, "" for anything else."""
    hint = value.hint if isinstance(value, Traced) else None
    if not isinstance(hint, mlx.core.array):
        return ""
    return f"{str(hint.dtype).rpartition('.')[2]} {list(hint.shape)}"


def _described(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_described(item) for item in value)
    sizes = [_example(size) for size in value.shape]
    return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(sizes)}]"


def _example(size: Any) -> str:
    hint = size if isinstance(size, int) else size.node.hint
    return str(size if hint is None else hint)


def _parameter(argument: Any) -> str:
    text = f"{argument.name}: {_type(str(argument.type))}"
    if not argument.has_default_value():
        return text
    default = argument.default_value
    if argument.name == "dtype" and isinstance(default, int):
        default = None
    return f"{text} = {default!r}"


def _type(kind: str) -> str:
    """The Python type of a schema type: `Optional[List[int]]` -> `list[int] | None`."""
    if kind.startswith("Optional["):
        return f"{_type(kind[9:-1])} | None"
    if kind.startswith("List["):
        return f"list[{_type(kind[5:-1])}]"
    return TYPES.get(kind, kind if kind in ("int", "float", "bool", "str") else "Any")
