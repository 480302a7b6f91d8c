"""What a pass decided: `--explain` prints these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """One decision about the user's model.

    Attributes:
        kind: "folded", "fused", "declined" or "simplified".
        what: What it was about: a state dict key, an operator, a pattern.
        why: What became of it, and for what reason.
        source_line: The author's `file:line: code`, or "" when it is unknown.
    """

    kind: str
    what: str
    why: str
    source_line: str

    def __str__(self) -> str:
        where = f"\n    at {self.source_line}" if self.source_line else ""
        return f"{self.kind} {self.what}: {self.why}{where}"
