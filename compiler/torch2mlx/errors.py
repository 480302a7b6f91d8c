"""Every error that a user can cause, in one place: each is one clear message."""

from __future__ import annotations

from dataclasses import dataclass


class Torch2MLXError(Exception):
    """Base of all errors that a user can cause; the command line exits with 2."""


class InputError(Torch2MLXError):
    """Bad usage: an unreadable source, a malformed spec, an unwritable folder."""


class ConflictError(Torch2MLXError):
    """Edits of a generated file conflict with what is generated now; the file marks where."""


class CaptureError(Torch2MLXError):
    """`torch.export` cannot capture the model as one graph."""


@dataclass(frozen=True)
class Unsupported:
    """One operator that nothing maps, at one place of the model.

    Attributes:
        op: ATen overload, e.g. `aten.lgamma.default`.
        module: Path and class of the module call, e.g. `encoder.norm (MyNorm)`.
        source_line: The author's `file:line: code`, or "" when it is unknown.
        count: How often this op occurs at this line.
        hint: What is wrong with it, and what to do.
    """

    op: str
    module: str
    source_line: str
    count: int
    hint: str

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        lines = [f"{self.op}{times} in {self.module}"]
        if self.source_line:
            lines.append(f"    at {self.source_line}")
        lines.append(f"    {self.hint}")
        return "\n".join(lines)


class UnsupportedError(Torch2MLXError):
    """The model uses operators, or arguments of operators, that are not mapped.

    Attributes:
        entries: Every such operator of the model, not only the first.
    """

    def __init__(self, entries: list[Unsupported]):
        self.entries = entries
        count = sum(entry.count for entry in entries)
        head = f"{count} unsupported operator call{'s' if count != 1 else ''}:"
        super().__init__("\n".join([head, *(f"  {entry}" for entry in entries)]))
