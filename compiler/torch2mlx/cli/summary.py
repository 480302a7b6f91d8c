"""What the command prints for people: the closing summary and the explanation of decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from torch2mlx.cli.outcome import Outcome

if TYPE_CHECKING:
    from torch2mlx.report import Report
    from torch2mlx.verify import Verification

_MOST = 8


def print_summary(console: Console, outcome: Outcome) -> None:
    """Print what was compiled, what is worth knowing about it, and where it is."""
    program, report = outcome.program, outcome.program.report
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    size = f"{report.trainable:,} trainable parameters, {decimal(report.bytes)}"
    table.add_row("model", f"{program.name}: {size}")
    for label, lines in (
        ("inputs", report.inputs),
        ("outputs", report.outputs),
        ("layers", [_counts(report.layers)]),
        ("operators", [_counts(_short(report.ops))]),
        ("to fill in", [", ".join(report.stubs)]),
        ("transposes", list(_transposes(report))),
        ("unused", [_names(report.unused)]),
        ("notes", [*report.notes, *outcome.notes]),
    ):
        _add_lines(table, label, lines)
    if outcome.folder is not None:
        verification = outcome.verification
        _add_lines(table, "verified", _verified(verification), _style(verification))
        shown = [name for name in outcome.files if not name.startswith(".")]
        table.add_row("files", f"{outcome.folder}/: {', '.join(shown)}")
    console.print(table)
    if outcome.folder is not None:
        _print_next_step(console)


def print_explanation(console: Console, report: Report) -> None:
    """Print every decision, and every transpose that is left, with the reasons."""
    if not report.decisions and not report.transposes:
        console.print("Nothing was decided: every operator has one translation.")
    kinds = dict.fromkeys(decision.kind for decision in report.decisions)
    for kind in kinds:
        console.print(Text(kind, style="bold"))
        for decision in report.decisions:
            if decision.kind == kind:
                _print_reason(
                    console, decision.what, decision.why, decision.source_line
                )
    if report.transposes:
        console.print(Text("transposes", style="bold"))
    for transpose in report.transposes:
        what = f"{transpose.module or 'the model'}, {decimal(transpose.bytes)}"
        _print_reason(console, what, transpose.why, transpose.source_line)


def _print_reason(console: Console, what: str, why: str, source_line: str) -> None:
    # Long lines stay whole: people search and copy them
    console.print(f"  {what}: {why}", soft_wrap=True)
    if source_line:
        console.print(f"      at {source_line}", soft_wrap=True)


def _add_lines(table: Table, label: str, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        if line:
            table.add_row(label, Text(line, style=style))
            label = ""


def _counts(counter: Counter[str]) -> str:
    """`Conv2d 20, BatchNorm 20, Linear`, the most frequent first."""
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    shown = [name if n == 1 else f"{name} {n}" for name, n in ranked[:_MOST]]
    if len(ranked) > _MOST:
        shown.append(f"{len(ranked) - _MOST} more")
    return ", ".join(shown)


def _short(ops: Counter[str]) -> Counter[str]:
    """`aten.add.Tensor` and `aten.add.Scalar` as `add`."""
    short: Counter[str] = Counter()
    for name, count in ops.items():
        short[name.removeprefix("aten.").partition(".")[0]] += count
    return short


def _names(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}"


def _transposes(report: Report) -> Iterator[str]:
    left = report.transposes
    if not left:
        yield "none"
        return
    total = decimal(sum(one.bytes for one in left))
    yield f"{len(left)} of {total} in all"
    for one in left[:3]:
        yield f"{one.module or 'the model'}: {one.why}"
    if len(left) > 3:
        yield f"and {len(left) - 3} more, which --explain lists"


def _verified(verification: Verification | None) -> list[str]:
    return ["not compared"] if verification is None else verification.lines()


def _style(verification: Verification | None) -> str:
    if verification is None:
        return "yellow"
    return "green" if verification.ok else "bold red"


def _print_next_step(console: Console) -> None:
    console.print()
    console.print("Next, in that folder:", style="bold")
    console.print("    from model_mlx import load_model", soft_wrap=True)
    console.print("    model = load_model()", soft_wrap=True)
