"""The module tree with the figures of each module, told by the calls that it makes."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping

from torch2mlx.analysis.findings import Call, ModuleRow, worst


def rows(
    classes: Mapping[str, type],
    calls: list[Call],
    sizes: Mapping[str, int],
) -> list[ModuleRow]:
    """One row for each module, those that hold others before them.

    Args:
        classes: Module path -> class, "" is the model.
        calls: The calls of the model.
        sizes: State dict key -> elements, for parameters.
    """
    inside: dict[str, list[Call]] = {}
    for call in calls:
        for path in _with_holders(call.module):
            inside.setdefault(path, []).append(call)
    parameters: Counter[str] = Counter()
    for key, size in sizes.items():
        for path in _with_holders(key.rpartition(".")[0]):
            parameters[path] += size
    return [
        _row(path, cls, inside.get(path, []), parameters[path])
        for path, cls in classes.items()
    ]


def place_of(cls: type) -> str:
    """`file:line` of a class, or "" when its source is not known."""
    with contextlib.suppress(OSError, TypeError):
        file = inspect.getsourcefile(cls)
        return f"{file}:{inspect.getsourcelines(cls)[1]}" if file else ""
    return ""


def _row(path: str, cls: type, calls: list[Call], parameters: int) -> ModuleRow:
    counts = Counter(call.verdict for call in calls)
    names = {name for call in calls for name in call.becomes}
    is_layer = len(names) == 1 and all(call.module == path for call in calls)
    name = names.pop() if is_layer else ""
    return ModuleRow(
        path,
        f"{cls.__module__}.{cls.__qualname__}",
        place_of(cls),
        worst(counts),
        name if name.startswith("nn.") else "",
        parameters,
        sum(call.flops for call in calls),
        dict(counts),
    )


def _with_holders(path: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`, "": a module and all that hold it."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
