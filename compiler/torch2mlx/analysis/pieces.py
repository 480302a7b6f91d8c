"""What can be said of a model that torch.export refuses: its parts are captured one by one.

The model runs once, and each module's arguments are kept. A part that cannot be captured either is taken
apart in turn; in the end the modules are known in which the capture fails.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from torch2mlx import passes
from torch2mlx.analysis.alternatives import for_message
from torch2mlx.analysis.calls import calls_in
from torch2mlx.analysis.findings import NOT_CAPTURED, Call, Failure, Verdict
from torch2mlx.capture import Captured, capture
from torch2mlx.capture.evaluation import evaluating
from torch2mlx.capture.failure import diagnose
from torch2mlx.errors import Torch2MLXError, UnsupportedError
from torch2mlx.lower.registry import MODULES
from torch2mlx.silence import silent
from torch2mlx.source.example import example_inputs

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Pieces:
    """What the parts of a model are.

    Attributes:
        calls: The operator calls of the parts that can be captured, and one for each module that cannot.
        failures: Why they cannot, each at the deepest module where it occurs.
    """

    calls: list[Call] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def take_apart(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: Torch2MLXError,
) -> Pieces:
    """Capture the parts of a model that cannot be captured as a whole.

    Args:
        model: The model.
        args: Its example arguments.
        kwargs: Its example keyword arguments.
        error: Why it cannot be captured.
    """
    search = _Search(model, _arguments_by_module(model, args, kwargs))
    search.apart("", model, error)
    return search.result()


def failure(path: str, module: nn.Module, error: Exception) -> Failure:
    """`error` as the failure of the module at `path`."""
    cls = type(module).__qualname__
    if isinstance(error, UnsupportedError):
        first = error.entries[0]
        return Failure(path, cls, f"{first.op}: {first.hint}", first.source_line, "")
    if isinstance(error, Torch2MLXError) and error.__cause__ is None:
        return Failure(path, cls, str(error), "", "")
    found = diagnose(error.__cause__ or error)
    rewrite = found.rewrite or for_message(found.cause)
    return Failure(path, cls, found.cause, found.source_line, rewrite)


def not_captured(path: str, module: nn.Module, why: Failure | None = None) -> Call:
    """The call that stands for what a module computes of its own."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    cls = type(module)
    return Call(
        NOT_CAPTURED,
        Verdict.UNKNOWN,
        (),
        path,
        f"{cls.__module__}.{cls.__qualname__}",
        why.source_line if why else "",
        (
            why.cause
            if why
            else "the model does not get there, and its inputs are not known"
        ),
        parameters=frozenset(f"{path}.{name}" if path else name for name in names),
    )


class _Search:
    def __init__(self, model: nn.Module, arguments: dict[str, Arguments]):
        self.arguments = arguments
        self.pieces = Pieces()
        self.failures: dict[tuple[str, str], Failure] = {}
        self.known: dict[str, list[Call]] = {}

    def result(self) -> Pieces:
        self.pieces.failures = list(self.failures.values())
        return self.pieces

    def apart(self, path: str, module: nn.Module, error: Exception) -> None:
        """`module` cannot be captured: note why, and capture its children."""
        found = failure(path, module, error)
        # The deepest module is named, and of several the first
        key = (found.source_line, found.cause)
        holder = self.failures.get(key)
        if holder is None or path.startswith(
            f"{holder.module}." if holder.module else ""
        ):
            self.failures[key] = found
        self.pieces.calls.append(not_captured(path, module, found))
        self._children(path, module)

    def _children(self, path: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            self._part(f"{path}.{name}" if path else name, child)

    def _part(self, path: str, module: nn.Module) -> None:
        given = self.arguments.get(path) or _inferred(module)
        if given is None:
            if not _is_container(module):
                self.pieces.calls.append(not_captured(path, module))
            self._children(path, module)
            return
        key = _signature(module, given)
        if key not in self.known:
            found = _captured(module, given)
            if isinstance(found, Exception):
                self.apart(path, module, found)
                return
            self.known[key] = calls_in(found)
        self.pieces.calls += [call.below(path) for call in self.known[key]]


def _captured(module: nn.Module, arguments: Arguments) -> Captured | Exception:
    """A part as a graph, or why there is none."""
    try:
        captured = capture(module, *arguments, opaque=MODULES)
        passes.run(captured)
    except Exception as error:
        # A part can take what only its surroundings are made to give: anything may fail
        return error
    return captured


def _signature(module: nn.Module, arguments: Arguments) -> str:
    """The same for parts that are captured as the same graph, such as the layers of a stack."""
    plain = (bool, int, float, str, tuple, list, type(None))
    settings = [
        (type(m), {k: v for k, v in vars(m).items() if isinstance(v, plain)})
        for m in module.modules()
    ]
    state = [(k, v.shape, v.dtype) for k, v in module.state_dict().items()]
    leaves, spec = tree_flatten(arguments)
    given = [
        (leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf
        for leaf in leaves
    ]
    return repr((settings, state, given, spec))


def _is_container(module: nn.Module) -> bool:
    return type(module).forward is nn.Module.forward


def _inferred(module: nn.Module) -> Arguments | None:
    """Inputs for a part that the run did not reach."""
    if _is_container(module):
        return None
    with evaluating(module):
        try:
            args, kwargs, _ = example_inputs(module)
        except (Torch2MLXError, ValueError, TypeError):
            return None
    return args, kwargs


def _arguments_by_module(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Arguments]:
    """Module path -> the arguments of its first call, as far as the model runs."""
    found: dict[str, Arguments] = {}

    def note(path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        found.setdefault(path, (args, kwargs))

    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            hook = functools.partial(note, path)
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(silent())
        # On the meta device a model stops where it asks for a value
        stack.enter_context(contextlib.suppress(Exception))
        model(*args, **kwargs)
    return found
