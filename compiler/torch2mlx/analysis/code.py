"""Generated classes beside the PyTorch classes that they come from."""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap

from torch2mlx.analysis.findings import Pair
from torch2mlx.analysis.modules import place_of
from torch2mlx.outline import Outlined
from torch2mlx.outline.operands import segments_below


def pairs(source: str, outlined: Outlined) -> list[Pair]:
    """One pair for each generated class, the model's first.

    Args:
        source: The generated file.
        outlined: Its classes and what they were made of.
    """
    texts = _classes(source)
    paths: dict[str, dict[str, None]] = {}
    classes: dict[str, type | None] = {}
    for segment in [outlined.model, *segments_below(outlined.model)]:
        spec = outlined.instances.class_of[id(segment)]
        classes[spec.name] = spec.cls
        paths.setdefault(spec.name, {})[segment.path] = None
    return [
        Pair(
            spec.name,
            tuple(sorted(paths.get(spec.name, {}), key=_natural)),
            texts[spec.name],
            _original(classes.get(spec.name)),
            place_of(spec.cls) if spec.cls is not None else "",
        )
        for spec in reversed(outlined.classes)
    ]


def _classes(source: str) -> dict[str, str]:
    lines = source.splitlines(keepends=True)
    return {
        node.name: "".join(lines[_first_line(node) - 1 : node.end_lineno])
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def _first_line(node: ast.ClassDef) -> int:
    return min(part.lineno for part in (node, *node.decorator_list))


def _original(cls: type | None) -> str:
    if cls is None:
        return ""
    with contextlib.suppress(OSError, TypeError):
        return textwrap.dedent(inspect.getsource(cls))
    return ""


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts `layers.2` before `layers.10`."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")
    ]
