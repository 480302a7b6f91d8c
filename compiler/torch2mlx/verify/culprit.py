"""Where a failed comparison comes from: the module call, the operator, and both source lines."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map_only

from torch2mlx.verify.cases import Inputs
from torch2mlx.verify.compare import Tolerance
from torch2mlx.verify.generated import generated_modules, line_of
from torch2mlx.verify.modules import deepest_difference, record_mlx, recording_torch
from torch2mlx.verify.operators import first_wrong_operator
from torch2mlx.verify.result import Culprit
from torch2mlx.verify.sides import run_mlx, run_torch
from torch2mlx.verify.state import State

if TYPE_CHECKING:
    from torch2mlx.api import Program


def find_culprit(program: Program, inputs: Inputs, tolerance: Tolerance) -> Culprit:
    """The deepest module call that differs, or that raises, on `inputs`."""
    captured, tensors = program.captured, inputs.tensors
    with State(program).kept(), recording_torch(program.model) as want:
        result = run_torch(program.model, captured, tensors)
        result = tree_map_only(torch.Tensor, torch.clone, result)
    modules = generated_modules(program.outlined)
    model = program.load()
    file = type(model).__call__.__code__.co_filename
    got = record_mlx(model, modules)
    why, operator = first_wrong_operator(program, tensors, result, tolerance)
    line: int | None = None
    try:
        run_mlx(model, program, tensors)
        path, error = deepest_difference(want, got, tolerance)
    except Exception as exception:
        path, error = got.raised or "", float("inf")
        line = line_in(exception, file)
    generated = modules[path]
    line = line or line_of(program.source, generated)
    cls = type(program.model.get_submodule(path)) if path in want.inputs else None
    return Culprit(
        path=path,
        torch_class=cls.__qualname__ if cls is not None else "no module of its own",
        torch_source=_forward_source(cls),
        mlx_class=generated.cls,
        mlx_line=line,
        max_error=error if error is not None else float("inf"),
        why=why,
        operator=operator,
    )


def line_in(error: BaseException, file: str) -> int | None:
    """The innermost line of `file` that led to `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return lines[-1] if lines else None


def _forward_source(cls: Any) -> str:
    if cls is None:
        return ""
    try:
        file = inspect.getsourcefile(cls.forward) or ""
        return f"{file}:{inspect.getsourcelines(cls.forward)[1]}"
    except (OSError, TypeError):
        return ""
