"""What one run of the command has made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch2mlx.api import Program
    from torch2mlx.review.merge import Merge
    from torch2mlx.source import Source
    from torch2mlx.verify import Verification


@dataclass(frozen=True)
class Outcome:
    """A compiled model.

    Attributes:
        spec: The source as the command line names it.
        source: The model and its example inputs.
        program: The result.
        verification: The comparison with PyTorch, or None where it was left out.
        folder: The folder that was written, or None.
        files: Names of the files in it.
        merge: What became of the texts that were in it.
    """

    spec: str
    source: Source
    program: Program
    verification: Verification | None
    folder: Path | None
    files: tuple[str, ...]
    merge: Merge | None = None

    @property
    def conflict(self) -> str:
        """What conflicts in the files, "" for nothing."""
        return self.merge.conflict() if self.merge is not None else ""

    @property
    def notes(self) -> list[str]:
        """What the user should know, beside the report."""
        return [*self.source.notes, *(self.merge.notes() if self.merge else [])]

    @property
    def ok(self) -> bool:
        """False if the outputs were compared and differ, or edits conflict with the new code."""
        verified = self.verification is None or self.verification.ok
        return verified and not self.conflict
