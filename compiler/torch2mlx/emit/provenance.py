"""Which of the author's lines each line of a generated file comes from.

The classes are written once more, now with what each statement is made of; the statements of the file are
found among them by their text. So a file that was formatted, merged or edited has its origins, too, but for
the lines that nobody generated.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import Frame, frames, frames_in_class, is_torch
from torch2mlx.emit.interface import interface
from torch2mlx.emit.module import call_of, limits_of
from torch2mlx.emit.statements import Made
from torch2mlx.outline import Outlined
from torch2mlx.outline.classes import ClassSpec

WIDTH = 88


@dataclass(frozen=True)
class Origin:
    """One statement of a generated file, and where it comes from.

    Attributes:
        cls: The generated class that it is in.
        node: The statement, with its lines.
        sources: The author's lines, that of the statement's own operator first.
        made: What it was made of; None outside `__call__`, and for a statement that nobody generated.
        edited: Whether it was changed, or added, since it was generated.
    """

    cls: str
    node: ast.stmt
    sources: tuple[Frame, ...] = ()
    made: Made | None = None
    edited: bool = False

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line, of a compound statement those of its head."""
        first, last = self.node.lineno, self.node.end_lineno or self.node.lineno
        body = getattr(self.node, "body", None)
        return (first, max(first, body[0].lineno - 1)) if body else (first, last)


def origins(source: str, outlined: Outlined, captured: Captured) -> list[Origin]:
    """The statements of the classes of a generated file, in order.

    Args:
        source: The text of the file, edited or not.
        outlined: The model as classes.
        captured: The model as it was captured.

    Raises:
        SyntaxError: `source` is no Python.
    """
    return origins_in(ast.parse(source), outlined, captured)


def origins_in(
    tree: ast.Module, outlined: Outlined, captured: Captured
) -> list[Origin]:
    """`origins` of a file that is parsed already: of these very nodes."""
    specs = {spec.name: spec for spec in outlined.classes}
    found: list[Origin] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in specs:
            found += _in_class(node, specs[node.name], outlined, captured)
    return found


def _in_class(
    node: ast.ClassDef, spec: ClassSpec, outlined: Outlined, captured: Captured
) -> Iterator[Origin]:
    cls = spec.cls
    if not spec.template.segment.path:  # of the model, the captured class is known
        cls = type(captured.modules[""]) if "" in captured.modules else cls
    yield Origin(spec.name, node, _one(_class_frame(cls)))
    for function in node.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        if function.name == "__init__":
            yield Origin(spec.name, function, _one(_lines_of(cls).get("__init__")))
            for statement in walk(function.body):
                source = _attribute_frame(statement, cls)
                yield Origin(spec.name, statement, _one(source))
        elif function.name == "__call__":
            yield Origin(spec.name, function, _one(_lines_of(cls).get("forward")))
            yield from _in_call(function, spec, cls, outlined, captured)


def _in_call(
    function: ast.FunctionDef,
    spec: ClassSpec,
    cls: type | None,
    outlined: Outlined,
    captured: Captured,
) -> Iterator[Origin]:
    is_model = spec is outlined.classes[-1]
    limits = limits_of(spec)
    face = interface(outlined.model, captured, limits) if is_model else None
    written, _, _ = call_of(spec, face, captured)
    module = ast.fix_missing_locations(ast.Module(written.statements, []))
    # Parsed again, both are spelled alike
    again = list(walk(ast.parse(ast.unparse(module)).body))
    made = [written.made.get(statement) for statement in walk(written.statements)]
    there = list(walk(function.body))
    pairs = matched(list(map(head, again)), list(map(head, there)))
    for index, statement in enumerate(there):
        before, edited = pairs.get(index), False
        if before is None:
            before, edited = _changed(index, pairs, again, there), True
        origin = made[before] if before is not None else None
        lines = author_lines(origin.nodes, cls) if origin is not None else ()
        yield Origin(spec.name, statement, lines, origin, edited)


def matched(before: list[str], after: list[str]) -> dict[int, int]:
    """Index in `after` -> the index in `before` that it has the text of, in order."""
    blocks = difflib.SequenceMatcher(
        None, before, after, autojunk=False
    ).get_matching_blocks()
    return {b.b + i: b.a + i for b in blocks for i in range(b.size)}


def _changed(
    index: int, pairs: dict[int, int], before: list[ast.stmt], after: list[ast.stmt]
) -> int | None:
    """Which statement became the one at `index`, if as many became as many and it does the same."""
    first = max((i for i in pairs if i < index), default=-1)
    last = min((i for i in pairs if i > index), default=len(after))
    begin = pairs[first] if first >= 0 else -1
    end = pairs[last] if last < len(after) else len(before)
    if end - begin != last - first:
        return None
    candidate = begin + index - first
    one, other = before[candidate], after[index]
    alike = type(one) is type(other) and _targets(one) == _targets(other)
    return candidate if alike else None


def _targets(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [ast.unparse(target) for target in targets]


def walk(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, those within others after them."""
    for statement in body:
        yield statement
        for field in ("body", "orelse"):
            yield from walk(getattr(statement, field, []))


def head(statement: ast.stmt) -> str:
    """The text of a statement, of a compound one its first line."""
    return ast.unparse(statement).partition("\n")[0]


# The author's lines


def author_lines(nodes: list[torch.fx.Node], cls: type | None) -> tuple[Frame, ...]:
    """The author's lines that some values come from, as the code of `cls` has them, the last first.

    Args:
        nodes: Nodes of the lowered graph.
        cls: The PyTorch class in which they are looked at.
    """
    found: dict[tuple[str, int], Frame] = {}
    for node in reversed(nodes):
        origin = node.meta.get("origin")
        if origin is None:
            continue
        inside = frames_in_class(origin, cls)
        own = [frame for frame in frames(origin) if not is_torch(frame)]
        frame = inside[0] if inside else (own or frames(origin) or [None])[-1]
        if frame is not None:
            found.setdefault((frame.file, frame.line), frame)
    return tuple(found.values())


def _one(frame: Frame | None) -> tuple[Frame, ...]:
    return () if frame is None else (frame,)


def _class_frame(cls: type | None) -> Frame | None:
    if cls is None:
        return None
    try:
        return Frame(
            inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1], ""
        )
    except (OSError, TypeError):
        return None


def _attribute_frame(statement: ast.stmt, cls: type | None) -> Frame | None:
    """Where the author assigns the attribute that a statement of `__init__` assigns."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if not isinstance(target, ast.Attribute):
        return None
    lines = _lines_of(cls)
    return lines.get(f"self.{target.attr}") or lines.get(
        f"self.{target.attr.rstrip('_')}"
    )


@functools.cache
def _lines_of(cls: type | None) -> dict[str, Frame]:
    """`self.x` and method name -> where the author's class, or a base of it, assigns or defines it."""
    found: dict[str, Frame] = {}
    for base in cls.__mro__ if cls is not None else ():
        if base in (torch.nn.Module, object):
            continue
        try:
            lines, start = inspect.getsourcelines(base)
            file = inspect.getsourcefile(base) or ""
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            continue
        for name, line in _named_lines(tree):
            found.setdefault(name, Frame(file, start + line - 1, ""))
    return found


def _named_lines(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name, node.lineno
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    yield ast.unparse(target), node.lineno


def shown(file: str) -> str:
    """The path of a file below the folder that it is imported from: the same on every machine."""
    roots = [os.path.realpath(entry) for entry in (*sys.path, os.getcwd()) if entry]
    real = os.path.realpath(file)
    inside = [
        os.path.relpath(real, root)
        for root in roots
        if real.startswith(os.path.join(root, ""))
    ]
    return Path(min(inside, key=len, default=file)).as_posix()


# What is made of the origins


def source_map(file: str, found: list[Origin]) -> str:
    """The origins as JSON, one line for each statement that has one."""
    entries = [
        json.dumps(
            {
                "lines": list(origin.lines),
                "class": origin.cls,
                "source": [f"{shown(f.file)}:{f.line}" for f in origin.sources],
            }
        )
        for origin in found
        if origin.sources
    ]
    body = ",\n".join(entries)
    return f'{{"file": {json.dumps(file)}, "statements": [\n{body}\n]}}\n'


def annotated(source: str, found: list[Origin]) -> str:
    """The file with a comment that names the author's line, behind each statement or above it."""
    lines = source.splitlines()
    for origin in sorted(found, key=lambda o: o.lines, reverse=True):
        first, last = origin.lines
        text = lines[first - 1]
        if not origin.sources or text.lstrip().startswith("elif "):
            continue
        comment = _comment(origin)
        behind = f"{text}  {comment}"
        is_class = isinstance(origin.node, ast.ClassDef)
        if first == last and len(behind) <= WIDTH and not is_class and "#" not in text:
            lines[first - 1] = behind
        else:
            indent = text[: len(text) - len(text.lstrip())]
            lines.insert(first - 1, f"{indent}{comment}")
    return "\n".join(lines) + "\n"


def _comment(origin: Origin) -> str:
    """`# net.py:12, 14`; of a class the whole path, `# models/net.py:8`."""
    numbers: dict[str, list[int]] = {}
    for frame in origin.sources:
        name = shown(frame.file)
        if not isinstance(origin.node, ast.ClassDef):
            name = name.rpartition("/")[2]
        numbers.setdefault(name, []).append(frame.line)
    places = (
        f"{name}:{', '.join(map(str, sorted(set(found))[:4]))}"
        for name, found in numbers.items()
    )
    return f"# {'; '.join(places)}"
