"""The report for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from torch2mlx.analysis.findings import ORDER, Share, Verdict
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

STYLES = {
    Verdict.MAPS: "green",
    Verdict.HELPER: "cyan",
    Verdict.UNKNOWN: "yellow",
    Verdict.REFUSED: "bold red",
}
_BAR = 32
_DEEP = 2


def as_text(analysis: Analysis) -> str:
    """The report as plain text."""
    out = io.StringIO()
    console = Console(file=out, width=100, color_system=None, highlight=False)
    print_analysis(console, analysis)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def print_analysis(console: Console, analysis: Analysis) -> None:
    """Print the report."""
    console.print(Text.assemble((analysis.name, "bold"), f"  {analysis.model}"))
    style = STYLES[Verdict.MAPS if analysis.ok else Verdict.REFUSED]
    console.print(Text(HEADLINES[analysis.status], style=style))
    console.print()
    console.print(_bars(analysis))
    console.print()
    console.print(Text(analysis.meaning))
    for title, part in (
        ("What stops it", _stops(analysis)),
        ("Modules", _modules(analysis)),
        ("Operators", _operators(analysis)),
        ("Notes", _notes(analysis)),
    ):
        if part is not None:
            console.print()
            console.print(Text(title, style="bold"))
            console.print(Padding(part, (0, 0, 0, 2), expand=False))


def _bars(analysis: Analysis) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify)
    for label, share, total in shares(analysis):
        if share.total:
            bar, part = _bar(share), percent(share.good)
            table.add_row(label, bar, part, f"of {total}")
    return table


def _bar(share: Share) -> Text:
    bar = Text()
    widths = _widths(share)
    for verdict, width in widths.items():
        bar.append("━" * width, STYLES[verdict])
    return bar


def _widths(share: Share) -> dict[Verdict, int]:
    """The width of each part; whatever is there is seen."""
    parts = {v: share.amounts[v] for v in ORDER if share.amounts.get(v)}
    widths = {v: max(1, _BAR * n // share.total) for v, n in parts.items()}
    largest = max(parts, key=parts.__getitem__)
    widths[largest] += _BAR - sum(widths.values())
    return widths


def _mark(verdict: Verdict | None) -> Text:
    return Text("·") if verdict is None else Text(MARKS[verdict], STYLES[verdict])


def _stops(analysis: Analysis) -> RenderableType | None:
    lines: list[RenderableType] = []
    for failure in analysis.failures:
        what = f"{module_name(failure.module)} ({failure.cls}): {failure.cause}"
        lines += _entry(Verdict.UNKNOWN, what, failure.source_line, failure.rewrite)
    for refusal in analysis.refused:
        times = f" ({refusal.count} times)" if refusal.count > 1 else ""
        what = f"{refusal.op}{times} in {refusal.module}"
        line, advice = refusal.source_line, refusal.alternative
        lines += _entry(Verdict.REFUSED, what, line, advice, refusal.hint)
    if analysis.blocked:
        lines += _entry(Verdict.REFUSED, analysis.blocked)
    return Group(*lines) if lines else None


def _entry(
    verdict: Verdict,
    what: str,
    source_line: str = "",
    advice: str = "",
    reason: str = "",
) -> Iterator[RenderableType]:
    yield _mark(verdict) + Text(f" {what}")
    where, code = place(source_line)
    for line in (
        f"at {where}: {code}" if where else source_line,
        reason,
        f"instead: {advice}" if advice else "",
    ):
        if line:
            yield Padding(Text(line), (0, 0, 0, 4), expand=False)


def _modules(analysis: Analysis) -> RenderableType | None:
    root = tree(analysis.modules)
    if root is None:
        return None
    shown = Tree(_module(root, analysis), guide_style="dim")
    _grow(shown, root, analysis, 1)
    return shown


def _grow(shown: Tree, node: Node, analysis: Analysis, depth: int) -> None:
    for child in node.children:
        branch = shown.add(_module(child, analysis))
        if depth < _DEEP or not child.is_plain:
            _grow(branch, child, analysis, depth + 1)


def _module(node: Node, analysis: Analysis) -> Text:
    row = node.row
    name = node.label or analysis.name
    cls = f" {node.count} × {row.name}" if node.count > 1 else f" {row.name}"
    text = _mark(row.verdict) + Text.assemble(" ", (name, "bold"))
    text.append(cls if cls[1:] != name else "")
    if row.becomes:
        text.append(f" → {row.becomes}", "cyan")
    figures = [f"{number(node.parameters)} parameters"] if node.parameters else []
    if node.flops:
        figures.append(f"{number(node.flops)} FLOPs")
    text.append(f"  {', '.join(figures)}" if figures else "", "dim")
    return text


def _operators(analysis: Analysis) -> RenderableType | None:
    if not analysis.calls:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("operator", no_wrap=True)
    table.add_column("calls", justify="right")
    table.add_column("becomes", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("in", overflow="fold")
    flops, parameters = analysis.by_flops.total, analysis.by_parameters.total
    for row in analysis.ops:
        table.add_row(
            _mark(row.verdict),
            Text(op_name(row.op)),
            str(row.calls),
            Text(_becomes(row.verdict, row.becomes)),
            percent(row.parameters / parameters) if row.parameters else "",
            percent(row.flops / flops) if row.flops else "",
            Text(joined(row.modules, 1)),
        )
    return table


def _becomes(verdict: Verdict, names: tuple[str, ...]) -> str:
    return joined(names) if names or verdict is Verdict.MAPS else WORDS[verdict]


def _notes(analysis: Analysis) -> RenderableType | None:
    notes = [f"example inputs: {analysis.inputs}", *analysis.notes]
    if analysis.unused:
        notes.append(f"no operator reads {joined(tuple(analysis.unused))}")
    return Group(*(Text(f"· {note}") for note in notes))
