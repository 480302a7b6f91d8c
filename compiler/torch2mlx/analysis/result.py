"""The result of an analysis: one model of the report, which every rendering shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch2mlx.analysis.findings import (
    GOOD,
    NOT_CAPTURED,
    ORDER,
    Call,
    Failure,
    ModuleRow,
    OpRow,
    Pair,
    Share,
    Verdict,
    rows_of,
    worst,
)
from torch2mlx.errors import Unsupported


@dataclass(frozen=True)
class Translation:
    """The file that the model compiles to.

    Attributes:
        source: Its text.
        stubs: Names of the functions that are to be filled in.
        pairs: Its classes beside PyTorch's.
    """

    source: str
    stubs: tuple[str, ...]
    pairs: list[Pair]

    @property
    def lines(self) -> int:
        """The lines of the file."""
        return self.source.count("\n")


@dataclass
class Analysis:
    """What of a model compiles, what does not, and why.

    Attributes:
        name: Name of the model.
        model: Qualified name of its class.
        inputs: What the example inputs are, in one line.
        calls: Every operator call of the simplified graph.
        sizes: State dict key -> elements, for parameters.
        modules: One row for each module, those that hold others before them.
        failures: Why modules cannot be captured; the model does not compile then, and its calls are those
            of the parts that can be.
        translation: The file that the model compiles to, if it gets that far.
        blocked: Why no file can be generated although the model is captured, or "".
        notes: What else is worth knowing, e.g. sizes that are fixed.
        unused: State dict keys that no operator reads.
    """

    name: str
    model: str
    inputs: str
    calls: list[Call]
    sizes: dict[str, int]
    modules: list[ModuleRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    translation: Translation | None = None
    blocked: str = ""
    notes: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        from torch2mlx.analysis.rendering import as_text

        return as_text(self)

    @property
    def ok(self) -> bool:
        """Whether the model compiles as it is: all maps, and the file was generated."""
        translation = self.translation
        return translation is not None and not translation.stubs

    @property
    def status(self) -> str:
        """ "compiles", "compiles with stubs", "blocked" or "not captured"."""
        if self.ok:
            return "compiles"
        if self.translation is not None:
            return "compiles with stubs"
        return "not captured" if self.failures else "blocked"

    @property
    def coverage(self) -> float:
        """The share of the operator calls that map, from 0 to 1; 1 only if all do."""
        return self.by_calls.good

    @property
    def by_calls(self) -> Share:
        """How many operator calls have each verdict."""
        return Share(dict(Counter(call.verdict for call in self.calls)))

    @property
    def by_flops(self) -> Share:
        """Floating-point operations of the calls of each verdict."""
        return _share((call.verdict, call.flops) for call in self.calls)

    @property
    def by_parameters(self) -> Share:
        """Elements of parameters by the worst call that reads them."""
        read: dict[str, list[Verdict]] = {}
        for call in self.calls:
            for key in call.parameters:
                read.setdefault(key, []).append(call.verdict)
        return _share(
            (worst(read.get(key, ())) or Verdict.MAPS, size)
            for key, size in self.sizes.items()
        )

    @property
    def ops(self) -> list[OpRow]:
        """One row for each operator and verdict, the worst first."""
        return rows_of(self.calls, self.sizes)

    @property
    def refused(self) -> list[Refusal]:
        """The refused calls, those of one line of the author's together."""
        groups: dict[tuple[str, str, str, str], list[Call]] = {}
        for call in self.calls:
            if call.verdict is Verdict.REFUSED:
                key = (call.op, call.module, call.source_line, call.reason)
                groups.setdefault(key, []).append(call)
        return [_refusal(group) for group in groups.values()]

    @property
    def meaning(self) -> str:
        """What the percentage means for this model, in one or two sentences."""
        mapped = sum(call.verdict in GOOD for call in self.calls)
        known = sum(call.op != NOT_CAPTURED for call in self.calls)
        part = f"{mapped} of {known} operator calls map"
        if self.translation is not None:
            size = f"{self.translation.lines} lines of MLX"
            if self.ok:
                return (
                    f"Every operator call maps, and the whole model was translated: {size}. "
                    "The compile does the same, writes the weights and compares the numbers "
                    "with PyTorch's."
                )
            count = len(self.translation.stubs)
            rest = "one function" if count == 1 else f"{count} functions"
            return (
                f"{part}. The rest of the model was translated to prove it: {size} with {rest} "
                "left to fill in, which is what --stubs writes. Without --stubs the compile refuses."
            )
        if not self.failures:
            return f"{part}, but no file can be generated: {self.blocked}"
        paths = [call.module for call in self.calls if call.op == NOT_CAPTURED]
        count = len(paths)
        amount = "one call that does" if count == 1 else f"{count} calls that do"
        return (
            f"The model does not compile as it is, since torch.export cannot capture it. Its parts "
            f"were captured one by one: {part} there. What {_names(paths)} outside of these parts "
            f"is not known, and counts as {amount} not map."
        )

    def to_dict(self) -> dict[str, Any]:
        """The analysis as plain containers, for JSON."""
        translation = self.translation
        return {
            "status": self.status,
            "name": self.name,
            "model": self.model,
            "example_inputs": self.inputs,
            "coverage": self.coverage,
            "meaning": self.meaning,
            "calls": _named(self.by_calls),
            "parameters": _named(self.by_parameters),
            "flops": _named(self.by_flops),
            "refused": [asdict(entry) for entry in self.refused],
            "failures": [asdict(entry) for entry in self.failures],
            "blocked": self.blocked,
            "ops": [asdict(row) for row in self.ops],
            "modules": [asdict(row) for row in self.modules],
            "notes": self.notes,
            "unused": self.unused,
            "lines": translation.lines if translation else 0,
            "stubs": list(translation.stubs) if translation else [],
        }

    def save(self, *paths: str | Path) -> None:
        """Write the report, in the form that each name's ending says: .md, .json, .html or .txt.

        Raises:
            InputError: Another ending, or the file cannot be written. Nothing is written then.
        """
        from torch2mlx.analysis.rendering import save

        save(self, [Path(path) for path in paths])


@dataclass(frozen=True)
class Refusal(Unsupported):
    """Refused calls at one line of the author's.

    Attributes:
        alternative: What to write instead, or "".
    """

    alternative: str = ""


def _refusal(calls: list[Call]) -> Refusal:
    first = calls[0]
    cls = first.cls.rpartition(".")[2]
    module = f"{first.module} ({cls})" if first.module else f"the model ({cls})"
    return Refusal(
        first.op,
        module,
        first.source_line,
        len(calls),
        first.reason,
        first.alternative,
    )


def _names(paths: list[str]) -> str:
    """`gate computes`, `the model itself, gate and 4 others compute`."""
    names = [path or "the model itself" for path in paths]
    if len(names) > 3:
        names[2:] = [f"{len(names) - 2} others"]
    if len(names) == 1:
        return f"{names[0]} computes"
    return f"{', '.join(names[:-1])} and {names[-1]} compute"


def _share(parts: Iterable[tuple[Verdict, int]]) -> Share:
    amounts: Counter[Verdict] = Counter()
    for verdict, amount in parts:
        amounts[verdict] += amount
    return Share({verdict: amounts[verdict] for verdict in ORDER if amounts[verdict]})


def _named(share: Share) -> dict[str, int]:
    return {verdict.value: share.amounts.get(verdict, 0) for verdict in ORDER}
