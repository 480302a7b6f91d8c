"""How figures, verdicts and places are written, the same in every rendering."""

from __future__ import annotations

import re
from pathlib import Path

from torch2mlx.analysis.findings import Share, Verdict
from torch2mlx.analysis.result import Analysis

MARKS = {
    Verdict.MAPS: "✓",
    Verdict.HELPER: "◐",
    Verdict.UNKNOWN: "?",
    Verdict.REFUSED: "✗",
}
WORDS = {
    Verdict.MAPS: "maps",
    Verdict.HELPER: "helper",
    Verdict.UNKNOWN: "not known",
    Verdict.REFUSED: "refused",
}
EXPLAINED = {
    Verdict.MAPS: "MLX has it: a function, an operator or a layer of mlx.nn",
    Verdict.HELPER: "a small MLX function that is copied into the generated file stands for it",
    Verdict.UNKNOWN: "torch.export does not get there, so it was not looked at",
    Verdict.REFUSED: "nothing stands for it: the compile stops with its name",
}
HEADLINES = {
    "compiles": "It compiles.",
    "compiles with stubs": "It does not compile yet: some operators are refused.",
    "blocked": "It does not compile: no file can be generated.",
    "not captured": "It does not compile: torch.export cannot capture it.",
}
_PREFIXES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?:: (?P<code>.*))?", re.DOTALL)


def percent(part: float) -> str:
    """A share from 0 to 1: "100 %" and "0 %" are for all and for nothing alone."""
    if part in (0.0, 1.0):
        return f"{part:.0%}".replace("%", " %")
    value = min(max(100 * part, 0.1), 99.9)
    return f"{value:.1f} %"


def number(value: int) -> str:
    """`25.6 M` for 25 557 032."""
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return str(value)


def op_name(op: str) -> str:
    """`conv2d` for `aten.conv2d.default`, `swiglu (fused)` for what a pass made of several."""
    short = op.removeprefix("aten.").removesuffix(".default")
    fused = short.removeprefix("torch2mlx.")
    return short if fused == short else f"{fused} (fused)"


def place(text: str) -> tuple[str, str]:
    """The `file:line` of a source line, as short as it stays clear, and its code."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return "", text
    return f"{_short(found['file'])}:{found['line']}", found["code"] or ""


def _short(file: str) -> str:
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    if "site-packages" in path.parts:
        return "/".join(path.parts[path.parts.index("site-packages") + 1 :])
    return file


def shares(analysis: Analysis) -> list[tuple[str, Share, str]]:
    """The three bars of a report: what is divided, how, and its total in words."""
    calls, parameters, flops = (
        analysis.by_calls,
        analysis.by_parameters,
        analysis.by_flops,
    )
    return [
        ("operator calls", calls, f"{calls.total:,}"),
        ("parameters", parameters, f"{parameters.total:,}"),
        ("FLOPs", flops, number(flops.total)),
    ]


def module_name(path: str) -> str:
    """The path of a module, or "the model"."""
    return path or "the model"


def joined(names: tuple[str, ...], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(module_name(name) for name in names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown
