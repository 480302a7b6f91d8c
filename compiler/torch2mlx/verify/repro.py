"""A small script that shows a difference: the module that makes it, exported with its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import torch
from torch.utils._pytree import tree_map_only

from torch2mlx.errors import InputError
from torch2mlx.verify.cases import Inputs
from torch2mlx.verify.result import Culprit
from torch2mlx.verify.sides import run_torch
from torch2mlx.weights.folder import new_file

if TYPE_CHECKING:
    from torch2mlx.api import Program


def write_repro(
    program: Program,
    culprit: Culprit,
    inputs: Inputs,
    path: Path,
    folder: Path | None = None,
) -> None:
    """Write the script, and the exported module beside it under the same name with `.pt2`.

    Args:
        program: The compiled model.
        culprit: Where the difference begins.
        inputs: The inputs that show it.
        path: The script.
        folder: The generated folder that was compared; None where the model was just compiled.

    Raises:
        InputError: The files cannot be written, or `torch.export` refuses the module alone.
    """
    if path.suffix != ".py":
        raise InputError(f"{path} is no name of a Python script")
    where = "" if folder is not None else culprit.path
    module = program.model.get_submodule(where)
    with _recording_call(module) as calls:
        run_torch(program.model, program.captured, inputs.tensors)
    if not calls:
        raise InputError(f"no script: the module {where!r} is not called by itself")
    args, kwargs = calls[0]
    try:
        exported = torch.export.export(module, args, kwargs, strict=False)
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise InputError(
            f"no script: torch.export refuses {where or 'the model'} alone: {text}"
        ) from error
    loader = jinja2.PackageLoader("torch2mlx_templates", "")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    data = path.with_suffix(".pt2")
    text = environment.get_template("repro.py.jinja").render(
        title=where or "the model",
        cls=type(module).__name__,
        data=data.name,
        case=inputs.name,
        lines=culprit.lines(),
        folder=str(folder.resolve()) if folder is not None else "",
    )
    with new_file(data) as file:
        torch.export.save(exported, file)
    with new_file(path) as file:
        file.write(text.encode())


@contextmanager
def _recording_call(module: torch.nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    calls: list[tuple[Any, Any]] = []

    def record(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
        copied = tree_map_only(
            torch.Tensor, lambda t: t.detach().clone(), (args, kwargs)
        )
        calls.append(copied)

    handle = module.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()
