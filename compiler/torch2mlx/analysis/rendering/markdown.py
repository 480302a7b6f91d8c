"""The report as Markdown, for a pull request or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch2mlx.analysis.findings import Verdict
from torch2mlx.analysis.rendering.tree import Node, tree
from torch2mlx.analysis.rendering.words import (
    HEADLINES,
    MARKS,
    WORDS,
    joined,
    module_name,
    number,
    op_name,
    percent,
    place,
    shares,
)
from torch2mlx.analysis.result import Analysis

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def as_markdown(analysis: Analysis) -> str:
    """The report."""
    return "\n".join(_lines(analysis)) + "\n"


def _lines(analysis: Analysis) -> Iterator[str]:
    yield f"# {_plain(analysis.name)}"
    yield ""
    yield f"**{HEADLINES[analysis.status]}** {_code(analysis.model)}"
    yield ""
    yield _plain(analysis.meaning)
    yield ""
    yield "| | maps | of |"
    yield "| --- | ---: | ---: |"
    for label, share, total in shares(analysis):
        if share.total:
            yield f"| {label} | {percent(share.good)} | {total} |"
    yield from _stops(analysis)
    yield from _modules(analysis)
    yield from _operators(analysis)
    yield from _notes(analysis)


def _stops(analysis: Analysis) -> Iterator[str]:
    if analysis.failures or analysis.refused or analysis.blocked:
        yield from ("", "## What stops it", "")
    for failure in analysis.failures:
        yield f"- {_module(failure.module, failure.cls)}: {_plain(failure.cause)}"
        yield from _source(failure.source_line)
        if failure.rewrite:
            yield f"  - instead: {_plain(failure.rewrite)}"
    for refusal in analysis.refused:
        times = f" ({refusal.count} times)" if refusal.count > 1 else ""
        yield f"- {_code(refusal.op)}{times} in {_plain(refusal.module)}: {_plain(refusal.hint)}"
        yield from _source(refusal.source_line)
        if refusal.alternative:
            yield f"  - instead: {_plain(refusal.alternative)}"
    if analysis.blocked:
        yield f"- {_plain(' '.join(analysis.blocked.split()))}"


def _source(source_line: str) -> Iterator[str]:
    if source_line:
        where, code = place(source_line)
        yield f"  - {_plain(where)}: {_code(code)}" if code else f"  - {_plain(where)}"


def _modules(analysis: Analysis) -> Iterator[str]:
    root = tree(analysis.modules)
    if root is None:
        return
    yield from ("", "## Modules", "")
    yield "| module | class | | becomes | parameters | FLOPs |"
    yield "| --- | --- | --- | --- | ---: | ---: |"
    yield from _rows(root, "")


def _rows(node: Node, path: str) -> Iterator[str]:
    row = node.row
    here = f"{path}.{node.label}" if path else node.label
    cls = f"{node.count} × {row.name}" if node.count > 1 else row.name
    cells = (
        _cell(_code(here) if here else "the model"),
        _cell(_plain(cls)),
        _verdict(row.verdict),
        _cell(_code(row.becomes)) if row.becomes else "",
        number(node.parameters) if node.parameters else "",
        number(node.flops) if node.flops else "",
    )
    yield f"| {' | '.join(cells)} |"
    for child in node.children:
        yield from _rows(child, here)


def _operators(analysis: Analysis) -> Iterator[str]:
    if not analysis.calls:
        return
    yield from ("", "## Operators", "")
    yield "| operator | calls | | becomes | parameters | FLOPs | in |"
    yield "| --- | ---: | --- | --- | ---: | ---: | --- |"
    flops, parameters = analysis.by_flops.total, analysis.by_parameters.total
    for row in analysis.ops:
        cells = (
            _cell(_code(op_name(row.op))),
            str(row.calls),
            _verdict(row.verdict),
            _cell(", ".join(_code(name) for name in row.becomes[:3])),
            percent(row.parameters / parameters) if row.parameters else "",
            percent(row.flops / flops) if row.flops else "",
            _cell(_plain(joined(row.modules))),
        )
        yield f"| {' | '.join(cells)} |"


def _notes(analysis: Analysis) -> Iterator[str]:
    yield from ("", "## Notes", "")
    yield f"- example inputs: {_plain(analysis.inputs)}"
    for note in analysis.notes:
        yield f"- {_plain(note)}"
    if analysis.unused:
        yield f"- no operator reads {_plain(joined(tuple(analysis.unused)))}"


def _module(path: str, cls: str) -> str:
    return f"{_code(path) if path else module_name(path)} ({_plain(cls)})"


def _verdict(verdict: Verdict | None) -> str:
    return f"{MARKS[verdict]} {WORDS[verdict]}" if verdict is not None else ""


def _plain(text: str) -> str:
    """Text without a meaning in Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """A code span, whatever backticks are in it."""
    text = " ".join(text.split())
    runs = re.findall(r"`+", text)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    space = " " if runs else ""
    return f"{fence}{space}{text}{space}{fence}" if text else ""


def _cell(text: str) -> str:
    """Text of a table: a bar in a code span would end its cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)
