"""What the command prints for programs: one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch2mlx.cli.outcome import Outcome
from torch2mlx.errors import Torch2MLXError, UnsupportedError


def result(outcome: Outcome) -> dict[str, Any]:
    """What was compiled; `status` is "ok", "mismatch" or "conflict"."""
    report = outcome.program.report.to_dict()
    verification = outcome.verification
    return {
        "status": _status(outcome),
        "source": outcome.spec,
        "name": outcome.program.name,
        "example_inputs": outcome.source.description,
        **report,
        "notes": [*report["notes"], *outcome.notes],
        "verification": verification.to_dict() if verification else None,
        "folder": str(outcome.folder) if outcome.folder else None,
        "files": list(outcome.files),
        "conflicts": outcome.merge.conflicts if outcome.merge else {},
    }


def _status(outcome: Outcome) -> str:
    if outcome.conflict:
        return "conflict"
    return "ok" if outcome.ok else "mismatch"


def refusal(spec: str, error: Torch2MLXError) -> dict[str, Any]:
    """Why nothing was compiled; `status` is "refused"."""
    entries = error.entries if isinstance(error, UnsupportedError) else []
    return {
        "status": "refused",
        "source": spec,
        "error": type(error).__name__,
        "message": str(error),
        "unsupported": [asdict(entry) for entry in entries],
    }
