"""Models from Python code: `pkg.mod:NAME` and `path/file.py:NAME`.

NAME is a module instance, a module class or a function; the latter two are called without arguments.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from torch2mlx.decorator import recipe_of
from torch2mlx.errors import InputError
from torch2mlx.source.loaded import Loaded
from torch2mlx.source.user_code import blame


def from_file(spec: str) -> Loaded:
    """The model NAME of `path/file.py:NAME`; files beside it can be imported.

    Raises:
        InputError: There is no such file or name, or its code fails.
    """
    text, name = _split(spec)
    path = Path(text)
    if not path.is_file():
        raise InputError(f"{spec}: there is no file {path}")
    with _importable(path.resolve().parent):
        module = _import_file(spec, path.resolve())
        return _loaded(spec, module, name)


def from_module(spec: str) -> Loaded:
    """The model NAME of `pkg.mod:NAME`; modules of the current folder can be imported.

    Raises:
        InputError: There is no such module or name, or its code fails.
    """
    path, name = _split(spec)
    with _importable(Path.cwd()):
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{path}.".startswith(f"{error.name}."):
                raise InputError(f"{spec}: {blame(error)}") from error
            raise InputError(
                f"{spec}: there is no module {error.name!r}, installed or in the "
                "current folder"
            ) from None
        except (Exception, SystemExit) as error:
            raise InputError(f"{spec}: {blame(error)}") from error
        return _loaded(spec, module, name)


def _split(spec: str) -> tuple[str, str]:
    path, _, name = spec.rpartition(":")
    if not path or (path.startswith(".") and not path.endswith(".py")):
        raise InputError(f"{spec}: give pkg.mod:NAME or path/file.py:NAME")
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{spec}: {name!r} is not the name of a model")
    return path, name


@contextmanager
def _importable(folder: Path) -> Generator[None, None, None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The code itself may have changed the list
        if entry in sys.path:
            sys.path.remove(entry)


def _import_file(spec: str, path: Path) -> ModuleType:
    # A file named like another module that is already imported must not replace it
    held = getattr(sys.modules.get(path.stem), "__file__", None)
    is_free = path.stem not in sys.modules or held == str(path)
    name = path.stem if is_free else f"{path.stem}_source"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Dataclasses and inspect look a class's module up
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise InputError(f"{spec}: {blame(error)}") from error
        raise
    return module


def _loaded(spec: str, module: ModuleType, name: str) -> Loaded:
    value = _value(spec, module, name)
    model = _model(spec, value, name)
    title = name.rpartition(".")[2]
    recipe = recipe_of(value)
    if recipe is None:
        return Loaded(model, title)
    if not (recipe.args or recipe.kwargs):
        return Loaded(model, title, options=recipe.options)
    args, kwargs = recipe.args, dict(recipe.kwargs)
    example = (args, kwargs, f"those that @export gives {title}")
    return Loaded(model, title, lambda _: example, options=recipe.options)


def _value(spec: str, module: ModuleType, name: str) -> Any:
    value: Any = module
    where = spec.rpartition(":")[0]
    for part in name.split("."):
        if not hasattr(value, part):
            raise InputError(f"{spec}: {where} has no {part!r}{_others(value, part)}")
        value, where = getattr(value, part), part
    return value


def _model(spec: str, value: Any, name: str) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    if not callable(value):
        raise InputError(
            f"{spec}: {name} is of type {type(value).__name__}; it must be an "
            "nn.Module, a class of one, or a function that returns one"
        )
    built = _call(spec, name, value)
    if not isinstance(built, nn.Module):
        raise InputError(
            f"{spec}: {name}() returns {type(built).__name__}, not an nn.Module"
        )
    return built


def _call(spec: str, name: str, factory: Any) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(
            f"{spec}: {name}() is called without arguments, but {error}; "
            "write a function without arguments that builds the model"
        ) from None
    except ValueError:
        # Callables in C have no signature: the call tells
        pass
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec}: {name}() fails: {blame(error)}") from error


def _others(owner: Any, name: str) -> str:
    """What `owner` has where `name` is missing: the likely one, else all that could be meant."""
    home = getattr(owner, "__name__", None)
    models = [
        key
        for key, value in vars(owner).items()
        if isinstance(value, nn.Module)
        or (
            getattr(value, "__module__", None) == home
            and (inspect.isclass(value) or inspect.isfunction(value))
        )
    ]
    close = difflib.get_close_matches(name, vars(owner), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it has {', '.join(models[:8])}" if models else ""
