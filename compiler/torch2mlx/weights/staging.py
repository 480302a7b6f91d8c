"""Hidden places beside their targets, in which files and folders are made whole.

A run holds a lock on the place that it works in, and the system releases it however the run ends: what is
there without a lock is left over from a run that was killed, and goes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing is cleared
    fcntl = None

PREFIX = ".torch2mlx-"
PLACE = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{12}}")


@contextmanager
def staged(target: Path, make: Callable[[Path], None]) -> Generator[Path, None, None]:
    """A new place beside `target`, removed at the end if it is still there.

    Args:
        target: What it will become.
        make: Makes an empty file or folder.

    Raises:
        OSError: The place cannot be made.
    """
    _clear(target.parent)
    stage, lock = _claimed(target, make)
    try:
        yield stage
    finally:
        remove(stage)
        if lock is not None:
            os.close(lock)


def aside(target: Path) -> Path:
    """A name beside `target` for what must not be lost, whatever happens: it is never cleared."""
    return target.with_name(f"{PREFIX}old-{secrets.token_hex(6)}")


def remove(place: Path) -> None:
    """Removes a file or a folder, if it is there and as far as that is possible."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink()


def _claimed(target: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """A new place and the lock on it, None where the system has none."""
    while True:
        place = target.with_name(f"{PREFIX}{secrets.token_hex(6)}")
        make(place)
        try:
            return place, _lock(place)
        except (BlockingIOError, FileNotFoundError):
            # Another run was faster, and took it for left over
            continue


def _clear(folder: Path) -> None:
    """Removes the places of runs that have ended."""
    with suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if PLACE.fullmatch(entry.name)]
        for place in found:
            with suppress(BlockingIOError, FileNotFoundError):
                lock = _lock(place)
                if lock is not None:
                    remove(place)
                    os.close(lock)


def _lock(place: Path) -> int | None:
    """The descriptor that holds the lock on a place, None where the system has no locks.

    Raises:
        BlockingIOError: Another run has it.
        FileNotFoundError: The place is gone.
    """
    if fcntl is None:
        return None
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(place)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
