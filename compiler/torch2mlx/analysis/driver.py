"""`analyze`: as far as a compile gets, and what it would say, without stopping at the first trouble."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from torch2mlx import passes
from torch2mlx.analysis.calls import calls_in
from torch2mlx.analysis.code import pairs
from torch2mlx.analysis.modules import rows
from torch2mlx.analysis.pieces import failure, not_captured, take_apart
from torch2mlx.analysis.result import Analysis, Translation
from torch2mlx.api import translate
from torch2mlx.capture import Captured, capture
from torch2mlx.capture.evaluation import evaluating
from torch2mlx.errors import CaptureError, Torch2MLXError, UnsupportedError
from torch2mlx.ir.decision import Decision
from torch2mlx.layout import IOLayout
from torch2mlx.lower.registry import MODULES
from torch2mlx.source.example import example_inputs


def analyze(
    model: nn.Module,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Any = "auto",
    io_layout: IOLayout = "mlx",
    name: str | None = None,
    disable: Collection[str] = (),
    fold_bn: bool = False,
    program: ExportedProgram | None = None,
    progress: Callable[[str], None] | None = None,
) -> Analysis:
    """Say what of a PyTorch module compiles, what does not, and why.

    The model is captured and lowered as `compile` does it, with every refused operator collected; what
    lowers is translated to the end, with functions to fill in for the rest. A model that torch.export
    refuses is taken apart, and its parts are looked at one by one.

    Args:
        model: The module, on the meta device too. It is left as it was.
        args: Example positional arguments of `forward`; without any example they are inferred.
        kwargs: Example keyword arguments.
        dynamic: As for `compile`.
        io_layout: As for `compile`.
        name: What the model is called.
        disable: Names of passes to leave out.
        fold_bn: As for `compile`.
        program: An exported program to analyze instead of exporting `model`.
        progress: Called with the name of each stage when it begins.

    Raises:
        InputError: The example inputs do not fit the model, or cannot be inferred; an option is unknown.
    """
    begin = progress or (lambda stage: None)
    described = "as given"
    if args is None and kwargs is None and program is None:
        with evaluating(model):
            args, kwargs, described = example_inputs(model)
    args, kwargs = args or (), dict(kwargs or {})
    title = name or type(model).__name__
    begin("capture")
    try:
        captured = capture(
            model, args, kwargs, dynamic=dynamic, program=program, opaque=MODULES
        )
        begin("passes")
        decisions = passes.run(captured, disable, fold_bn=fold_bn)
    except (CaptureError, UnsupportedError) as error:
        begin("parts")
        return _in_pieces(model, args, kwargs, error, title, described)
    begin("lower")
    found = Analysis(
        title, captured.model_class, described, calls_in(captured), _sizes(captured)
    )
    found.modules = rows(captured.classes, found.calls, found.sizes)
    found.notes = list(captured.notes)

    def translated(stage: str) -> None:
        if stage != "lower":
            begin(stage)

    _translate(found, model, captured, decisions, io_layout, name, translated)
    return found


def _translate(
    found: Analysis,
    model: nn.Module,
    captured: Captured,
    decisions: list[Decision],
    io_layout: IOLayout,
    name: str | None,
    begin: Callable[[str], None],
) -> None:
    """Compile what maps, and note how far that gets."""
    try:
        made = translate(
            model,
            captured,
            decisions,
            io_layout=io_layout,
            name=name,
            stubs=True,
            begin=begin,
            dumps={},
        )
    except UnsupportedError as error:
        found.blocked = str(error.entries[0])
    except CaptureError as error:
        found.blocked = str(error)
    else:
        found.name, found.notes = made.name, made.report.notes
        found.unused = made.report.unused
        found.translation = Translation(
            made.source,
            tuple(stub.name for stub in made.lowered.stubs),
            pairs(made.source, made.outlined),
        )


def _in_pieces(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Torch2MLXError,
    name: str,
    described: str,
) -> Analysis:
    cls = type(model)
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    found = Analysis(name, f"{cls.__module__}.{cls.__qualname__}", described, [], sizes)
    if isinstance(model, torch.fx.GraphModule):
        # A file with an exported program has lost its modules
        found.failures = [failure("", model, error)]
        found.calls = [not_captured("", model, *found.failures)]
        return found
    pieces = take_apart(model, args, kwargs, error)
    found.calls, found.failures = pieces.calls, pieces.failures
    classes = {path: type(module) for path, module in model.named_modules()}
    found.modules = rows(classes, pieces.calls, sizes)
    return found


def _sizes(captured: Captured) -> dict[str, int]:
    return {
        key: captured.tensors[key].numel()
        for key in captured.tensors
        if key in captured.trainable and key not in captured.aliases
    }
