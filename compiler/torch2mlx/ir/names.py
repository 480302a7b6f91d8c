"""Names that generated code needs for itself."""

from __future__ import annotations

import inspect
import keyword

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


def is_variable(name: str) -> bool:
    """Whether `name` can be a local variable or parameter of generated code."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in TAKEN
