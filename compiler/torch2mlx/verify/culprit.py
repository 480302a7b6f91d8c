"""Where a failed comparison comes from: the module call, the statement, the operator, and the likely cause."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import torch
from torch.utils._pytree import tree_map_only

from torch2mlx.emit import syntax
from torch2mlx.emit.provenance import Origin, head, origins
from torch2mlx.verify.cases import Inputs
from torch2mlx.verify.cause import UNKNOWN, Cause, cause_of, weights_cause
from torch2mlx.verify.compare import Tolerance
from torch2mlx.verify.generated import Generated, generated_modules, line_of
from torch2mlx.verify.modules import deepest_difference, record_mlx, recording_torch
from torch2mlx.verify.operators import first_wrong_operator
from torch2mlx.verify.result import BUFFER, Case, Culprit, Operator, Statement
from torch2mlx.verify.sides import run_mlx, run_torch
from torch2mlx.verify.state import State
from torch2mlx.verify.statements import WrongStatement, wrong_statement

if TYPE_CHECKING:
    from torch2mlx.api import Program


def find_culprit(
    program: Program, inputs: Inputs, tolerance: Tolerance, case: Case
) -> Culprit:
    """The deepest module call that differs, or that raises, on `inputs`.

    Args:
        program: The compiled model.
        inputs: The inputs.
        tolerance: How far values may be apart.
        case: What was found on these inputs.
    """
    captured, tensors = program.captured, inputs.tensors
    with State(program).kept(), recording_torch(program.model) as want:
        result = run_torch(program.model, captured, tensors)
        result = tree_map_only(torch.Tensor, torch.clone, result)
    modules = generated_modules(program.outlined)
    model = program.load()
    file = type(model).__call__.__code__.co_filename
    got = record_mlx(model, modules)
    why, operator, reference = first_wrong_operator(program, tensors, result, tolerance)
    line: int | None = None
    try:
        run_mlx(model, program, tensors)
        path, error = deepest_difference(want, got, tolerance)
    except Exception as exception:
        path, error = got.raised or "", float("inf")
        line = line_in(exception, file)
    buffer = _wrong_buffer(case, modules)
    path = buffer.rpartition(".")[0] if buffer else path
    generated = modules[path]
    if line is not None:
        found = Closer(_statement_at(program, line))
    elif buffer:
        found = _of_buffer(program, generated, buffer)
        error = max(output.max_error for output in case.outputs if not output.ok)
    else:
        outputs = want.outputs.get(path, []), got.outputs.get(path, [])
        try:
            wrong = wrong_statement(
                program, tensors, path, generated, reference, tolerance
            )
            found = _closer(wrong, operator, *outputs)
            of_weights = weights_cause(program, model, path, modules)
            found = replace(found, cause=of_weights) if of_weights else found
            if error is None and found.cause == UNKNOWN:
                found = Closer(None, ("", "a single call of it agrees"))
        except Exception as exception:  # the module is worth knowing without it
            found = Closer(None, ("", f"nothing closer is found: {exception!r}"))
    cls = type(program.model.get_submodule(path)) if path in want.inputs else None
    return Culprit(
        path=path,
        torch_class=cls.__qualname__ if cls is not None else "no module of its own",
        torch_source=_forward_source(cls),
        mlx_class=generated.cls,
        mlx_line=line or line_of(program.source, generated),
        max_error=error if error is not None else float("inf"),
        why=why,
        operator=operator,
        statement=found.statement,
        cause=found.cause[0],
        evidence=found.cause[1],
    )


def _wrong_buffer(case: Case, modules: Mapping[str, Generated]) -> str:
    """The buffer that differs, where outputs do not; "" for none."""
    wrong = [output.label for output in case.outputs if not output.ok]
    names = [label.removeprefix(BUFFER) for label in wrong]
    if not names or not all(label.startswith(BUFFER) for label in wrong):
        return ""
    return names[0] if names[0].rpartition(".")[0] in modules else ""


def _of_buffer(program: Program, generated: Generated, buffer: str) -> Closer:
    """The statement that writes to a buffer."""
    attribute = f"self.{buffer.rpartition('.')[2]}"
    found = origins(program.source, program.outlined, program.captured)
    writes = [
        origin
        for origin in found
        if origin.cls == generated.cls
        and (origin.made is not None or origin.edited)
        and head(origin.node).startswith(attribute)
    ]
    statement = _statement(writes[-1]) if writes else None
    return Closer(
        statement, ("state", f"it leaves other values in the buffer {buffer}")
    )


@dataclass(frozen=True)
class Closer:
    """What is known beyond the module: the statement, and the kind of fault."""

    statement: Statement | None
    cause: Cause = UNKNOWN


def _closer(
    wrong: WrongStatement | None,
    operator: Operator | None,
    want: Sequence[torch.Tensor],
    got: Sequence[mx.array],
) -> Closer:
    """The statement, and the fault by the arrays there, else by those that the module returns."""
    statement = _statement(wrong.origin, operator) if wrong else None
    code = [operator.op] if operator else []
    code += [statement.code] if statement else []
    if wrong is not None and wrong.want:
        want, got = wrong.want, wrong.got
    return Closer(statement, cause_of(want, got, code))


def _statement(origin: Origin, operator: Operator | None = None) -> Statement:
    frames = sorted(origin.sources, key=lambda frame: (frame.file, frame.line))
    sources = list(map(str, frames))
    if operator is not None and operator.source_line in sources:
        sources = [operator.source_line]
    code = syntax.tidy(head(origin.node))
    return Statement(origin.lines[0], code, tuple(sources), origin.edited)


def _statement_at(program: Program, line: int) -> Statement | None:
    """The statement at a line of the generated file."""
    found = origins(program.source, program.outlined, program.captured)
    there = [o for o in found if o.lines[0] <= line <= o.lines[1]]
    return _statement(there[-1]) if there else None


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
