"""What an analysis finds, as data: the verdict on every operator call and on every module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Verdict(StrEnum):
    """What becomes of an operator call; a module has the worst of its calls."""

    MAPS = "maps"
    HELPER = "helper"
    UNKNOWN = "unknown"
    REFUSED = "refused"


# Stands for what a module computes of its own where it cannot be captured: one call, for want of a count
NOT_CAPTURED = "(not captured)"

# From the best to the worst
ORDER = tuple(Verdict)
GOOD = frozenset({Verdict.MAPS, Verdict.HELPER})


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The worst of some verdicts; None where there are none."""
    return max(verdicts, key=ORDER.index, default=None)


@dataclass(frozen=True)
class Call:
    """One operator call of the simplified graph.

    Attributes:
        op: ATen overload, e.g. `aten.conv2d.default`.
        verdict: What becomes of it.
        becomes: What stands for it, e.g. `nn.Conv2d`, `mx.mean`; empty where it costs nothing.
        module: Path of the innermost module that makes the call, "" for the model itself.
        cls: Class of that module.
        source_line: The author's `file:line: code`, or "" when it is unknown.
        reason: Why it is refused, or not known.
        alternative: What to write instead, or "".
        parameters: State dict keys of the parameters that it reads.
        flops: Floating-point operations for the example inputs.
    """

    op: str
    verdict: Verdict
    becomes: tuple[str, ...]
    module: str
    cls: str
    source_line: str
    reason: str = ""
    alternative: str = ""
    parameters: frozenset[str] = frozenset()
    flops: int = 0

    def below(self, path: str) -> Call:
        """The same call of a module that is the part at `path` of a model."""
        module = f"{path}.{self.module}" if self.module else path
        parameters = frozenset(f"{path}.{key}" for key in self.parameters)
        return replace(self, module=module, parameters=parameters)


@dataclass(frozen=True)
class Failure:
    """A module that cannot be captured as a graph.

    Attributes:
        module: Its path, "" for the model itself.
        cls: Its class.
        cause: What is the matter.
        source_line: The author's line, or "".
        rewrite: How it is usually written, or "".
    """

    module: str
    cls: str
    cause: str
    source_line: str
    rewrite: str


@dataclass(frozen=True)
class OpRow:
    """All calls of one operator that have the same verdict.

    Attributes:
        op: ATen overload.
        verdict: What becomes of the calls.
        calls: How many there are.
        becomes: What stands for them.
        modules: Paths of the modules that make them.
        source_lines: The author's lines, the most frequent first.
        parameters: Elements of the parameters that they read.
        flops: Their floating-point operations.
    """

    op: str
    verdict: Verdict
    calls: int
    becomes: tuple[str, ...]
    modules: tuple[str, ...]
    source_lines: tuple[str, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class ModuleRow:
    """One module with all that is below it.

    Attributes:
        path: Its path, "" for the model itself.
        cls: Qualified name of its class.
        source: `file:line` of the class, or "" when it is unknown.
        verdict: The worst of its calls; None where it computes nothing.
        becomes: What it is in MLX if it is one layer, or "".
        parameters: Elements of its parameters.
        flops: Floating-point operations for the example inputs.
        calls: Verdict -> how many operator calls.
    """

    path: str
    cls: str
    source: str
    verdict: Verdict | None
    becomes: str
    parameters: int
    flops: int
    calls: dict[Verdict, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class without its package."""
        return self.cls.rpartition(".")[2]


@dataclass(frozen=True)
class Pair:
    """One generated class beside the PyTorch class that it comes from.

    Attributes:
        name: Name of the generated class.
        paths: The modules that are instances of it.
        generated: Its code.
        original: The PyTorch code, or "" when it cannot be read.
        source: `file:line` of the PyTorch class, or "".
    """

    name: str
    paths: tuple[str, ...]
    generated: str
    original: str
    source: str


@dataclass(frozen=True)
class Share:
    """How an amount is split between the verdicts.

    Attributes:
        amounts: Verdict -> its part.
    """

    amounts: dict[Verdict, int]

    @property
    def total(self) -> int:
        """The whole."""
        return sum(self.amounts.values())

    @property
    def good(self) -> float:
        """The part that maps or has a helper, from 0 to 1; of nothing it is all."""
        mapped = sum(self.amounts.get(verdict, 0) for verdict in GOOD)
        return mapped / self.total if self.total else 1.0


def rows_of(calls: Iterable[Call], sizes: dict[str, int]) -> list[OpRow]:
    """One row for each operator and verdict: the worst first, then the most frequent.

    Args:
        calls: The calls.
        sizes: State dict key -> elements, for parameters.
    """
    groups: dict[tuple[str, Verdict], list[Call]] = {}
    for call in calls:
        groups.setdefault((call.op, call.verdict), []).append(call)
    rows = [_row(op, verdict, group, sizes) for (op, verdict), group in groups.items()]
    return sorted(rows, key=lambda r: (-ORDER.index(r.verdict), -r.calls, r.op))


def _row(op: str, verdict: Verdict, calls: list[Call], sizes: dict[str, int]) -> OpRow:
    keys = {key for call in calls for key in call.parameters}
    return OpRow(
        op,
        verdict,
        len(calls),
        _ranked(name for call in calls for name in call.becomes),
        tuple(dict.fromkeys(call.module for call in calls)),
        _ranked(call.source_line for call in calls if call.source_line),
        sum(sizes.get(key, 0) for key in keys),
        sum(call.flops for call in calls),
    )


def _ranked(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in Counter(names).most_common())
