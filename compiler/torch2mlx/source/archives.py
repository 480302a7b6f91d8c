"""Models from files: exported programs, and pickled modules where the user trusts them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from torch2mlx.errors import InputError
from torch2mlx.source.inputs import describe
from torch2mlx.source.loaded import Example, Loaded
from torch2mlx.source.user_code import first_line

PICKLES = (".pt", ".pth", ".pkl", ".bin")


def from_program(text: str, trust_pickle: bool) -> Loaded:
    """The program of a `.pt2` file, with the example inputs it was exported with.

    Args:
        text: The file.
        trust_pickle: Accept weights that are pickled.

    Raises:
        InputError: The file holds no exported program with example inputs.
    """
    path = _existing(text)
    if not is_zipfile(path):
        raise InputError(f"{path} is not a file that torch.export.save wrote")
    try:
        with _no_pickles(trust_pickle):
            program = torch.export.load(path)
    except pickle.UnpicklingError:
        raise _refused(path) from None
    except Exception as error:
        raise InputError(
            f"{path}: torch.export cannot load it: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    if program.example_inputs is None:
        raise InputError(
            f"{path} holds no example inputs; export the model again and save it "
            "with torch.export.save"
        )
    example = partial(_example, program)
    return Loaded(program.module(), path.stem, example, program)


def from_pickle(text: str, trust_pickle: bool) -> Loaded:
    """The module of a file that `torch.save(model, path)` wrote.

    Args:
        text: The file.
        trust_pickle: Unpickle it, which can run any code.

    Raises:
        InputError: The file is not trusted, cannot be read or holds no module.
    """
    path = _existing(text)
    if not trust_pickle:
        _explain_weights(path)
        raise _refused(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(
            f"{path} cannot be unpickled: {type(error).__name__}: {first_line(error)}"
        ) from error
    if isinstance(value, torch.jit.ScriptModule):
        raise InputError(
            f"{path} holds a TorchScript module, which has no Python code to read; "
            "give the nn.Module it was made from"
        )
    if not isinstance(value, nn.Module):
        raise _not_a_module(path, value)
    return Loaded(value, path.stem)


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return path


def _explain_weights(path: Path) -> None:
    """Raises if the file holds nothing but tensors, which is safe to find out."""
    try:
        value = torch.load(path, map_location="meta", weights_only=True)
    except Exception:
        # Whatever is wrong with it, it is not trusted
        return
    raise _not_a_module(path, value)


def _not_a_module(path: Path, value: Any) -> InputError:
    what = f"a {type(value).__name__}"
    if isinstance(value, dict) and value:
        tensors = sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))
        what = f"a dict of {tensors} tensors" if tensors else "a dict"
    return InputError(
        f"{path} holds {what}, not an nn.Module; give a function that builds the model "
        "and loads it, as file.py:NAME"
    )


def _refused(path: Path) -> InputError:
    return InputError(
        f"{path} holds a pickle, and unpickling can run code; "
        "pass --trust-pickle if you trust where it comes from"
    )


@contextmanager
def _no_pickles(trusted: bool) -> Generator[None, None, None]:
    """torch.export.load falls back on pickle; torch has only this switch against it."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    if not trusted:
        os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key, None)
        if before is not None:
            os.environ[key] = before


def _example(program: ExportedProgram, model: nn.Module) -> Example:
    assert program.example_inputs is not None
    args, kwargs = program.example_inputs
    lines = [
        describe(None, leaf.shape, leaf.dtype)
        for leaf in tree_leaves((args, kwargs))
        if isinstance(leaf, torch.Tensor)
    ]
    return args, kwargs, f"{'; '.join(lines)}, as the program was exported with"
