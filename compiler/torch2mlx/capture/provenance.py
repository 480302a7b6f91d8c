"""Where a captured node comes from: its module calls, the author's source lines and variable names.

`torch.export` keeps for each node the stack of module calls and the Python frames. What it does not keep
is which value a module's `forward` received under which name; hooks record that while it traces.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.fx.proxy import TracerBase
from torch.utils._pytree import tree_leaves

from torch2mlx.errors import Unsupported, UnsupportedError

_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>\S+)')

# Code that a module's author did not write: PyTorch's, and what it calls of this package
FOREIGN = (
    os.path.join(torch.__path__[0], ""),
    os.path.join(os.path.dirname(__file__), ""),
)


# PyTorch's own modules and their functions
LAYERS = os.path.join(torch.__path__[0], "nn", "")
# How PyTorch calls a module
CALLS = ("forward", "_call_impl")
# Methods after which an array is the same
CASTS = ("to", "type", "type_as", "float", "half", "contiguous")


@dataclass(frozen=True)
class Frame:
    """One Python frame: where it stands, and in which function."""

    file: str
    line: int
    function: str

    @property
    def code(self) -> str:
        """The source line, stripped."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}"


@dataclass(frozen=True)
class ModuleCall:
    """One call of one module.

    Attributes:
        path: The module's path, "" for the model itself.
        call: 0 for the first call of this module, 1 for the second, ...
        cls: Qualified name of its class, e.g. `torch.nn.modules.linear.Linear`.
    """

    path: str
    call: int
    cls: str

    @property
    def key(self) -> str:
        """The path, with `@n` for a repeated call."""
        return f"{self.path}@{self.call}" if self.call else self.path

    def __str__(self) -> str:
        name = self.cls.rpartition(".")[2]
        return f"{self.path} ({name})" if self.path else f"the model ({name})"


def module_calls(node: torch.fx.Node) -> tuple[ModuleCall, ...]:
    """The module calls around `node`, the model first; empty where export recorded none."""
    return calls_in(node.meta.get("nn_module_stack") or {})


def calls_in(stack: Mapping[str, tuple[str, Any]]) -> tuple[ModuleCall, ...]:
    """The module calls in a module stack as export records it."""
    calls = []
    for key, (path, cls) in stack.items():
        if path.startswith("_empty_nn_module_stack"):
            return ()
        _, _, call = key.partition("@")
        name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
        calls.append(ModuleCall(path.partition("@")[0], int(call or 0), name))
    return tuple(calls)


def classes_in(graph: torch.fx.Graph) -> dict[str, type]:
    """Module path -> class, told by the calls in a graph; "" is the model.

    A class that is not imported is stood in for by an empty one of its name. Modules that are never called
    but hold others are lists or dicts of modules.
    """
    classes: dict[str, type] = {}
    for node in graph.nodes:
        for call in module_calls(node):
            classes.setdefault(call.path, _class_named(call.cls))
    for path in list(classes):
        while path:
            path, _, name = path.rpartition(".")
            holder = torch.nn.ModuleList if name.isdigit() else torch.nn.ModuleDict
            classes.setdefault(path, holder)
    return classes


def _class_named(qualified: str) -> type:
    module, _, name = qualified.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else _stand_in(module, name)


@functools.cache
def _stand_in(module: str, name: str) -> type:
    return type(name, (torch.nn.Module,), {"__module__": module})


def frames(node: torch.fx.Node) -> list[Frame]:
    """The Python frames that led to `node`, outermost first."""
    trace = node.meta.get("stack_trace") or ""
    return [
        Frame(found["file"], int(found["line"]), found["function"])
        for found in _FRAME.finditer(trace)
        if not found["file"].startswith("<eval_with_key>")  # written by torch.fx
    ]


def source_line(node: torch.fx.Node) -> str:
    """`file:line: code` of the author's line: the innermost frame outside PyTorch."""
    own = [frame for frame in frames(node) if not is_torch(frame)]
    found = own or frames(node)
    return str(found[-1]) if found else ""


def calling_module(node: torch.fx.Node) -> str:
    """The module call that `node` is part of, as messages name it: `encoder.norm (MyNorm)`."""
    calls = module_calls(node)
    return str(calls[-1]) if calls else "the model"


def unsupported(node: torch.fx.Node, hint: str) -> UnsupportedError:
    """The error that names a captured call, its module and the author's line."""
    op, module = str(node.target), calling_module(node)
    return UnsupportedError([Unsupported(op, module, source_line(node), 1, hint)])


@functools.cache
def _statements(file: str) -> list[ast.stmt]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]


@functools.cache
def statement(frame: Frame) -> ast.stmt | None:
    """The innermost statement that a frame is in."""
    covering = [
        s
        for s in _statements(frame.file)
        if s.lineno <= frame.line <= (s.end_lineno or s.lineno)
    ]
    if not covering:
        return None
    return min(
        covering, key=lambda s: ((s.end_lineno or s.lineno) - s.lineno, -s.col_offset)
    )


@functools.cache
def assigned_names(frame: Frame) -> tuple[str, ...]:
    """The names that the statement at `frame` assigns: ("x",), ("q", "k", "v"), or () for none."""
    found = statement(frame)
    targets: list[ast.expr] = []
    if isinstance(found, ast.Assign):
        targets = found.targets[:1]
    elif isinstance(found, ast.AugAssign | ast.AnnAssign):
        targets = [found.target]
    value = getattr(found, "value", None)
    if isinstance(value, ast.Dict):
        return _entry(value, frame.line)
    if targets and isinstance(targets[0], ast.Tuple):
        targets = targets[0].elts
    return tuple(_target_name(target) for target in targets)


@functools.cache
def returned_names(frame: Frame) -> dict[str, int | None]:
    """The variables that the function at `frame` returns, and which of several results each is."""
    functions = [
        node
        for node in _statements(frame.file)
        if isinstance(node, ast.FunctionDef)
        and node.lineno <= frame.line <= (node.end_lineno or node.lineno)
    ]
    function = max(functions, key=lambda node: node.lineno, default=None)
    found: dict[str, int | None] = {}
    for node in _own_statements(function):
        value = node.value if isinstance(node, ast.Return) else None
        if isinstance(value, ast.Tuple):
            names = map(_returned_name, value.elts)
            found |= {name: place for place, name in enumerate(names) if name}
        elif value is not None:
            found[_returned_name(value)] = None
    return found


def _returned_name(value: ast.expr) -> str:
    """The variable that an expression is, perhaps as another dtype: `x.to(y.dtype)`."""
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr not in CASTS:
            return ""
        value = value.func.value
    return _target_name(value)


def _own_statements(function: ast.AST | None) -> Iterator[ast.AST]:
    """What a function consists of, without the functions in it."""
    for node in ast.iter_child_nodes(function) if function is not None else ():
        yield node
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own_statements(node)


def _entry(values: ast.Dict, line: int) -> tuple[str, ...]:
    """The key of what a dict has at a line, if that is one entry."""
    keys = [
        key.value if isinstance(key, ast.Constant) else None
        for key, value in zip(values.keys, values.values, strict=True)
        if value.lineno <= line <= (value.end_lineno or value.lineno)
    ]
    return (keys[0],) if len(keys) == 1 and isinstance(keys[0], str) else ()


def _target_name(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else ""


@functools.cache
def _class_lines(cls: type) -> tuple[tuple[str, int, int], ...]:
    spans = []
    # Decorators may have put another forward into the class
    forward = getattr(cls, "forward", None)
    for base in (*cls.__mro__, *([forward] if inspect.isfunction(forward) else [])):
        if base in (torch.nn.Module, object):
            continue
        with contextlib.suppress(OSError, TypeError):
            code: Any = getattr(base, "__code__", base)  # not what it wraps
            lines, start = inspect.getsourcelines(code)
            file = inspect.getsourcefile(code) or ""
            spans.append((file, start, start + len(lines)))
    return tuple(spans)


def frames_in_class(node: torch.fx.Node, cls: type | None) -> list[Frame]:
    """The frames that led to `node` from the code of `cls` on, innermost first.

    They begin where `cls` or one of its bases stands in the source, and end where another module is
    called. PyTorch's own code counts only for PyTorch's own classes.
    """
    if cls is None:
        return []
    found = frames(node)
    spans = _class_lines(cls)
    inside = [
        i
        for i, frame in enumerate(found)
        if any(f == frame.file and start <= frame.line < end for f, start, end in spans)
    ]
    if not inside:
        return []
    kept = [found[inside[-1]]]
    for frame in found[inside[-1] + 1 :]:
        if frame.function == "forward":
            break
        if is_torch(frame) and not cls.__module__.startswith("torch."):
            break
        kept.append(frame)
    return kept[::-1]


def is_torch(frame: Frame) -> bool:
    """Whether a frame stands in PyTorch itself, or in what it calls of this package."""
    return frame.file.startswith(FOREIGN)


@contextlib.contextmanager
def recording_calls(model: torch.nn.Module) -> Iterator[None]:
    """While `model` is traced, note in the `meta` of each value what it is to the modules, and all frames.

    `forward_args` is [(module path, argument of forward)], `forward_results` [(module path, position among
    the arrays that forward returns)].
    """
    handles = []
    for path, module in model.named_modules():
        before = functools.partial(_note_arguments, path)
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        after = functools.partial(_note_results, path)
        handles.append(module.register_forward_hook(after))
    kept = TracerBase._filter_traceback_frames
    TracerBase._filter_traceback_frames = _author_frames  # type: ignore[method-assign]
    try:
        yield
    finally:
        TracerBase._filter_traceback_frames = kept  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def _author_frames(_: Any, stack: traceback.StackSummary) -> traceback.StackSummary:
    """The frames from the model's `forward` on, those of functions that the author calls there too.

    `torch.export` itself keeps those named `forward` only.
    """
    names = [frame.name for frame in stack]
    first = names.index("forward") if "forward" in names else len(names)
    return traceback.StackSummary.from_list(
        frame
        for frame in stack[first:]
        if frame.name in CALLS
        or frame.filename.startswith(LAYERS)
        or not frame.filename.startswith(FOREIGN)
    )


def _note_arguments(
    path: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if torch.compiler.is_dynamo_compiling():
        return  # a branch of torch.cond or the like
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError:
        return  # the call itself will raise, with a better message
    for name, value in bound.arguments.items():
        node = traced(value)
        if node is not None:
            node.meta.setdefault("forward_args", []).append((path, name))


def _note_results(path: str, module: torch.nn.Module, args: Any, results: Any) -> None:
    if torch.compiler.is_dynamo_compiling():
        return
    for position, value in enumerate(tree_leaves(results)):
        node = traced(value)
        if node is not None:
            node.meta.setdefault("forward_results", []).append((path, position))


def traced(value: Any) -> torch.fx.Node | None:
    """The node of the graph under construction that stands for a tensor."""
    mode = get_proxy_mode()
    if mode is None or not isinstance(value, torch.Tensor):
        return None
    slot = get_proxy_slot(value, mode.tracer, None)
    return getattr(getattr(slot, "proxy", None), "node", None)
