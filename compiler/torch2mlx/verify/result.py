"""What a verification found, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

# What the label of a buffer that forward writes to begins with
BUFFER = "buffer "


@dataclass(frozen=True)
class OutputError:
    """The comparison of one output.

    Attributes:
        label: The keys that lead to it, "output" where the result is one array.
        shape: Its shape in PyTorch.
        max_error: Largest absolute difference; infinite where the two cannot be compared.
        max_value: Largest absolute value in PyTorch.
        allowed: How large `max_error` may be.
        ok: Whether shape, dtype and values agree.
        why: What is wrong, "" where nothing is.
        constant: Whether PyTorch's values are all the same: agreement proves little then.
    """

    label: str
    shape: tuple[int, ...]
    max_error: float
    max_value: float
    allowed: float
    ok: bool
    why: str = ""
    constant: bool = False

    def __str__(self) -> str:
        return f"{self.label} {list(self.shape)} {self.why or 'agrees'}"


@dataclass(frozen=True)
class Case:
    """Both models on one set of inputs.

    Attributes:
        name: What the inputs are.
        outputs: The comparison of each output.
        error: The exception that the generated code raised, "" for none.
    """

    name: str
    outputs: list[OutputError] = field(default_factory=list)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the generated code ran and every output agrees."""
        return not self.error and all(output.ok for output in self.outputs)

    def __str__(self) -> str:
        if self.error:
            return f"{self.name}: the generated code fails: {self.error}"
        wrong = [str(output) for output in self.outputs if not output.ok]
        if wrong:
            more = f", and {len(wrong) - 2} more outputs" if len(wrong) > 2 else ""
            return f"{self.name}: {', '.join(wrong[:2])}{more}"
        count = len(self.outputs)
        largest = max((output.max_error for output in self.outputs), default=0.0)
        agree = "1 output agrees" if count == 1 else f"{count} outputs agree"
        return f"{self.name}: {agree}, largest difference {largest:.1e}"


@dataclass(frozen=True)
class Operator:
    """The first operator whose MLX form gives something else.

    Attributes:
        op: ATen overload.
        module: Path and class of the module call that it belongs to.
        source_line: The author's `file:line: code`, "" when it is unknown.
        max_error: Largest absolute difference of its result.
    """

    op: str
    module: str
    source_line: str
    max_error: float

    def __str__(self) -> str:
        where = f" at {self.source_line}" if self.source_line else ""
        return f"{self.op} in {self.module}{where}"


@dataclass(frozen=True)
class Statement:
    """A statement of the generated file.

    Attributes:
        line: Its first line.
        code: Its text, of a compound one that of the head.
        sources: The author's lines that it stands for, each `file:line: code`.
        edited: Whether it was changed, or added, since it was generated.
    """

    line: int
    code: str
    sources: tuple[str, ...] = ()
    edited: bool = False

    def lines(self) -> list[str]:
        """The statement and its origin for people to read."""
        edited = " (edited since it was generated)" if self.edited else ""
        first = f"line {self.line}{edited}: {self.code}"
        return [first, *(f"from {source}" for source in self.sources)]


@dataclass(frozen=True)
class NotFinite:
    """Where NaN or infinity begins in PyTorch itself.

    Attributes:
        what: "NaN" or "infinity".
        op: ATen overload that makes it from numbers.
        module: Path and class of the module call that it belongs to.
        source_line: The author's `file:line: code`, "" when it is unknown.
    """

    what: str
    op: str
    module: str
    source_line: str

    def __str__(self) -> str:
        where = f" at {self.source_line}" if self.source_line else ""
        return f"{self.what} in PyTorch itself: first {self.op} in {self.module}{where}"


@dataclass(frozen=True)
class Culprit:
    """The deepest module call whose inputs agree and whose outputs differ.

    Attributes:
        path: The module's path in PyTorch, "" for the model itself.
        torch_class: Its PyTorch class.
        torch_source: `file:line` of that class's `forward`, "" when it is unknown.
        mlx_class: Its class in the generated file, or `nn.<layer>`.
        mlx_line: The line of the generated file where it is defined, made, or fails.
        max_error: Largest absolute difference of its outputs.
        why: Which stage of the compiler made the difference.
        operator: The operator that differs, where it is one.
        statement: The statement of the generated file that differs, where it can be told.
        cause: What kind of fault it looks like: "layout", "precision", "mask", "dtype", "state", or "".
        evidence: What that is judged by.
    """

    path: str
    torch_class: str
    torch_source: str
    mlx_class: str
    mlx_line: int
    max_error: float
    why: str
    operator: Operator | None = None
    statement: Statement | None = None
    cause: str = ""
    evidence: str = ""

    def lines(self) -> list[str]:
        """The culprit for people to read."""
        source = f", {self.torch_source}" if self.torch_source else ""
        lines = [
            f"culprit: {self.path or 'the model itself'} ({self.torch_class}{source})",
            f"    in MLX {self.mlx_class}, line {self.mlx_line} of the generated file",
        ]
        if self.statement is not None:
            lines += [f"    {line}" for line in self.statement.lines()]
        lines.append(f"    {self.why}")
        lines += [f"    {self.operator}"] if self.operator else []
        if self.cause:
            lines.append(f"    likely cause: {self.cause} ({self.evidence})")
        elif self.evidence:
            lines.append(f"    {self.evidence}")
        return lines


@dataclass(frozen=True)
class Verification:
    """The comparison of a generated model with the PyTorch model.

    Attributes:
        cases: One for each set of inputs.
        culprit: Where the first difference comes from, None when there is none.
        notes: What limits the comparison, e.g. sizes that PyTorch refuses.
        not_finite: Where NaN or infinity in PyTorch's own outputs begins, None where all are finite.
    """

    cases: list[Case]
    culprit: Culprit | None = None
    notes: list[str] = field(default_factory=list)
    not_finite: NotFinite | None = None

    @property
    def ok(self) -> bool:
        """Whether all cases agree."""
        return all(case.ok for case in self.cases)

    def lines(self) -> list[str]:
        """The comparison for people to read."""
        culprit = self.culprit.lines() if self.culprit else []
        odd = [str(self.not_finite)] if self.not_finite else []
        return [str(case) for case in self.cases] + culprit + odd + self.notes

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON; a difference that is not finite is None."""
        data = asdict(self)
        for case, plain in zip(self.cases, data["cases"], strict=True):
            plain["ok"] = case.ok
        return _finite({"ok": self.ok, **data})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
