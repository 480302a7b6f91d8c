"""`@torch2mlx.export(...)`: a model class that says itself how it is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

import torch2mlx
from torch2mlx.errors import InputError

if TYPE_CHECKING:
    from torch2mlx.api import Program

T = TypeVar("T", bound=Callable[..., Any])
_ATTRIBUTE = "__torch2mlx__"


@dataclass(frozen=True)
class Recipe:
    """What `export` was given.

    Attributes:
        args: Example positional arguments of `forward`.
        kwargs: Example keyword arguments.
        options: Further keyword arguments of `torch2mlx.compile`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    def compile(self, model: nn.Module) -> Program:
        """Compile a model as the recipe says."""
        return torch2mlx.compile(model, self.args, self.kwargs, **self.options)


def export(
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[[T], T]:
    """Say beside a model how it is compiled.

    The decorated class gets a method `to_mlx(folder=None)`, which compiles an instance, writes the
    folder where one is named, and returns the program. A decorated function that builds a model gets
    `to_mlx` as an attribute, which calls it without arguments. `torch2mlx-compile file.py:NAME` finds
    the example inputs and the options here, too; its own options come first.

    Args:
        args: Example positional arguments of `forward`.
        kwargs: Example keyword arguments.
        options: Further keyword arguments of `torch2mlx.compile`, such as `fold_bn=True`.

    Raises:
        InputError: `torch2mlx.compile` has no such option, or what is decorated is neither a module
            class nor a function.
    """
    known = inspect.signature(torch2mlx.compile).parameters
    for name in options:
        if name not in known or name in ("model", "program", "progress"):
            raise InputError(f"export() has no option {name!r}")
    if not isinstance(args, tuple):
        raise InputError("export() takes the positional arguments as a tuple: (x,)")
    recipe = Recipe(args, dict(kwargs or {}), options)

    def decorate(target: T) -> T:
        is_class = _is_class(target)

        def of_instance(self: nn.Module, folder: str | Path | None = None) -> Program:
            """Compile this model as its `export` says; write the folder where one is named."""
            program = recipe.compile(self)
            if folder is not None:
                program.save(folder)
            return program

        def of_function(folder: str | Path | None = None) -> Program:
            """Build the model and compile it; write the folder where one is named."""
            return of_instance(target(), folder)

        method = of_instance if is_class else of_function
        for name, value in {_ATTRIBUTE: recipe, "to_mlx": method}.items():
            setattr(target, name, value)
        return target

    return decorate


def _is_class(target: Any) -> bool:
    """Whether a class is decorated, not a function; everything else is refused."""
    is_class = inspect.isclass(target)
    if is_class and not issubclass(target, nn.Module):
        raise InputError(f"@export: {target.__name__} is not an nn.Module class")
    if not is_class and not inspect.isfunction(target):
        raise InputError("@export decorates a module class or a function")
    if hasattr(target, "to_mlx") and recipe_of(target) is None:
        raise InputError(f"@export: {target.__name__} has a to_mlx already")
    return is_class


def recipe_of(value: Any) -> Recipe | None:
    """What `export` said of a class, a function or an instance; None for others."""
    found = getattr(value, _ATTRIBUTE, None)
    return found if isinstance(found, Recipe) else None
