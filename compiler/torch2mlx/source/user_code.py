"""Errors of the user's own code, told in one line that points at his file."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = [
    *{sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
]


def blame(error: BaseException) -> str:
    """`file:line: Type: message`, at the deepest line that belongs to no library."""
    kind = type(error).__name__
    message = first_line(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: {kind}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    text = f"{kind}: {message}" if message else kind
    if not own:
        return text
    return f"{_short(own[-1].filename)}:{own[-1].lineno}: {text}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), "")


def _is_library(filename: str) -> bool:
    return filename.startswith("<") or any(
        Path(filename).is_relative_to(folder) for folder in _LIBRARIES
    )


def _short(filename: str) -> str:
    path = Path(filename)
    return str(
        path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    )
