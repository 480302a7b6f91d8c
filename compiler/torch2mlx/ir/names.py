"""Names that generated code needs for itself."""

from __future__ import annotations

import inspect
import keyword
import re

import mlx.nn

from torch2mlx_templates import helpers

# Attributes of every MLX module: nothing else can be set under these names
RESERVED = frozenset(dir(mlx.nn.Module()))

# Names that generated functions read; a variable must not hide them
TAKEN = frozenset(
    [
        "mx",
        "nn",
        "math",
        "itertools",
        "self",
        "range",
        "super",
        "max",
        "min",
        "round",
        "int",
        "float",
        "str",
        "dict",
        "list",
        "tuple",
        "slice",
        "layer",
        "stage",
    ]
) | {name for name, value in vars(helpers).items() if inspect.isfunction(value)}

# How the names of functions begin that the user is to fill in
STUB = "stub_"


def snake_case(name: str) -> str:
    """A class name as an attribute: MaxPool2d -> max_pool2d, RoPE -> rope."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def is_variable(name: str) -> bool:
    """Whether `name` can be a local variable or parameter of generated code."""
    if keyword.iskeyword(name) or name in TAKEN or name.startswith(STUB):
        return False
    return name.isidentifier()
