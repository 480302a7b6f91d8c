"""Progress on stderr, where that is a terminal: a spinner for the stages, a bar for the weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_WORDS = {
    "source": "loading the model",
    "capture": "capturing the graph",
    "passes": "simplifying the graph",
    "parts": "capturing the parts one by one",
    "lower": "mapping operators and layers",
    "layout": "placing the channels",
    "outline": "finding classes and loops",
    "emit": "writing the source",
    "verify": "comparing with PyTorch",
}
_WIDE = 1000


def console(file: TextIO) -> Console:
    """A console that prints text as it is: no markup, and no styles where NO_COLOR is set."""
    return Console(
        file=file,
        # In a file or a pipe lines stay whole
        width=None if file.isatty() else _WIDE,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        emoji=False,
        highlight=False,
    )


class Display:
    """Shows what is going on, and nothing where nobody looks.

    Args:
        enabled: Show anything at all; stderr must also be a terminal.
    """

    def __init__(self, enabled: bool) -> None:
        self._console = console(sys.stderr)
        self._disabled = not (enabled and self._console.is_terminal)

    @contextmanager
    def stages(self) -> Generator[Callable[[str], None], None, None]:
        """Gives the function to call with the name of each stage that begins."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with self._progress(*columns, TimeElapsedColumn()) as progress:
            task = progress.add_task("", total=None)

            def begin(stage: str) -> None:
                # At once: a stage may hold the interpreter for long
                progress.update(
                    task, description=_WORDS.get(stage, stage), refresh=True
                )

            yield begin

    @contextmanager
    def bytes_written(self, total: int) -> Generator[Callable[[int], None], None, None]:
        """Gives the function to call with the bytes written since the last call."""
        columns = (TextColumn("writing weights"), BarColumn(), DownloadColumn())
        with self._progress(*columns) as progress:
            task = progress.add_task("", total=total)
            yield lambda count: progress.advance(task, count)

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=self._disabled,
            # What the model's code prints to a pipe stays there
            redirect_stdout=sys.stdout.isatty(),
        )
