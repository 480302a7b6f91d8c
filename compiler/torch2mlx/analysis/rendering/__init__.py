"""The renderings of an analysis, and writing them to files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch2mlx.analysis.rendering.html import as_html
from torch2mlx.analysis.rendering.markdown import as_markdown
from torch2mlx.analysis.rendering.terminal import as_text, print_analysis
from torch2mlx.analysis.result import Analysis
from torch2mlx.errors import InputError
from torch2mlx.weights.folder import new_file

__all__ = ["as_text", "check", "print_analysis", "save"]


def as_json(analysis: Analysis) -> str:
    """The report as one JSON object."""
    return json.dumps(analysis.to_dict(), indent=2) + "\n"


FORMS: dict[str, Callable[[Analysis], str]] = {
    ".md": as_markdown,
    ".json": as_json,
    ".html": as_html,
    ".txt": as_text,
}


def check(paths: list[Path]) -> None:
    """Refuse names of files that cannot be written, before the work rather than after it.

    Raises:
        InputError: An ending without a rendering, a folder in the file's place, or no folder to write to.
    """
    for path in paths:
        if path.suffix not in FORMS:
            forms = ", ".join(FORMS)
            raise InputError(f"cannot write {path}: a report's name ends in {forms}")
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if not os.access(path.parent, os.W_OK):
            raise InputError(
                f"cannot write {path}: no folder {path.parent} to write to"
            )


def save(analysis: Analysis, paths: list[Path]) -> None:
    """Write the report to files, in the form that each ending says; each whole or not at all.

    Raises:
        InputError: A file cannot be written.
    """
    check(paths)
    texts = [FORMS[path.suffix](analysis) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        with new_file(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
