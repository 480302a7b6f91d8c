"""Files and folders that appear whole or not at all.

Everything is staged beside its place, synced to disk, then put there by one rename.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from torch2mlx.errors import InputError
from torch2mlx.weights.staging import PLACE, aside, staged


def save_folder(
    path: str | os.PathLike[str],
    files: Mapping[str, str | bytes],
    weights: Callable[[Path], None] | None = None,
    stale: Callable[[str], bool] = lambda name: False,
) -> Path:
    """Writes a folder; at any moment a crash leaves the old one or the new one, each complete.

    An existing folder is replaced by one that holds the new files and, besides them, everything
    that was there under other names.

    Args:
        path: The folder; missing parents are made.
        files: File name -> content; text is written as UTF-8.
        weights: Called with the folder in which to write any further files.
        stale: Whether a file of the old folder, by its name, goes with what is replaced.

    Returns:
        The folder.

    Raises:
        InputError: The folder cannot be written; an existing one is as it was.
    """
    path = Path(path)
    # A link to a folder stays: what it points to is replaced
    target = Path(os.path.realpath(path))
    with _explained(path, target):
        _check_target(path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged(target, Path.mkdir) as stage:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                (stage / name).write_bytes(data)
            if weights is not None:
                weights(stage)
            _sync_files(stage)
            replaces = target.exists()
            if replaces:
                _check_names(path, target, stage)
                _keep_others(target, stage, stale)
            _sync_folders(stage)
            if replaces:
                # What has been replaced is removed with the stage
                _exchange(stage, target)
            else:
                os.rename(stage, target)
            _sync(target.parent)
    return path


def check_folder(path: str | os.PathLike[str]) -> None:
    """Checks, without writing, that `save_folder` can write here; for use before long work.

    Raises:
        InputError: The folder cannot be written.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    _check_target(path, target)
    nearest = next(parent for parent in target.parents if parent.exists())
    if not os.access(nearest, os.W_OK):
        raise InputError(f"cannot write {path}: {os.strerror(errno.EACCES)}")


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Generator[BinaryIO, None, None]:
    """Opens a file for writing that replaces `path` when the block ends without an error.

    Raises:
        InputError: The file cannot be written; an older one is as it was.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    with _explained(path, target):
        if target.exists() and not target.is_file():
            raise InputError(f"cannot write {path}: it is not a regular file")
        with staged(target, partial(Path.touch, exist_ok=False)) as stage:
            with open(stage, "r+b", buffering=0) as file:
                yield file
                os.fsync(file.fileno())
            os.replace(stage, target)


@contextmanager
def _explained(path: Path, target: Path) -> Generator[None, None, None]:
    try:
        yield
    except InputError as error:
        # From a writer that only knows the stage
        stage = re.escape(f"{target.parent}{os.sep}") + PLACE.pattern
        text = re.sub(stage, lambda _: str(path), str(error))
        if text == str(error):
            raise
        raise InputError(text) from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _check_target(path: Path, target: Path) -> None:
    if not target.exists():
        nearest = next(parent for parent in target.parents if parent.exists())
        if not nearest.is_dir():
            raise InputError(f"cannot write {path}: {nearest} is not a folder")
        return
    if not target.is_dir():
        raise InputError(f"cannot write the folder {path}: a file is in its place")
    why = ""
    if not os.access(target, os.W_OK):
        why = os.strerror(errno.EACCES)
    elif target.is_mount():
        why = "a mount point cannot be replaced, name a folder inside it"
    elif Path.cwd().is_relative_to(target):
        why = "the current folder cannot be replaced, name a folder inside it"
    if why:
        raise InputError(f"cannot write {path}: {why}")


def _check_names(path: Path, target: Path, stage: Path) -> None:
    for name in sorted(os.listdir(stage)):
        if (target / name).is_dir():
            raise InputError(f"cannot write {path / name}: a folder is in its place")


def _keep_others(
    old: Path, new: Path, stale: Callable[[str], bool] = lambda name: False
) -> None:
    """Gives `new` all that `old` holds under other names, sharing the files where possible."""
    ours = set(os.listdir(new))
    with os.scandir(old) as entries:
        others = [entry for entry in entries if entry.name not in ours]
    for entry in others:
        copy = new / entry.name
        if entry.is_dir(follow_symlinks=False):
            copy.mkdir()
            _keep_others(Path(entry.path), copy)
        elif not stale(entry.name):
            _link_or_copy(entry.path, copy)
    shutil.copystat(old, new)


def _link_or_copy(source: str, destination: Path) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except (OSError, NotImplementedError):
        # Not every file system has hard links
        shutil.copy2(source, destination, follow_symlinks=False)


def _exchange(stage: Path, target: Path) -> None:
    """Swaps two folders, in one step where the system can."""
    if _exchange_atomically(stage, target):
        return
    old = aside(target)
    try:
        os.rename(target, old)
        os.rename(stage, target)
    except BaseException as error:
        if stage.exists() and old.exists():
            _restore(old, target, error)
        raise
    finally:
        if not stage.exists():
            shutil.rmtree(old, ignore_errors=True)


def _restore(old: Path, target: Path, error: BaseException) -> None:
    try:
        os.rename(old, target)
    except OSError:
        text = f"cannot replace {target}: {error}; the old folder is now {old}"
        raise InputError(text) from error


def _exchange_atomically(stage: Path, target: Path) -> bool:
    """Swaps two folders in one step; False where the system or the file system cannot."""
    paths = os.fsencode(stage), os.fsencode(target)
    swap = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = libc.renamex_np(*paths, swap)
        else:
            here = -100  # AT_FDCWD
            failed = libc.renameat2(here, paths[0], here, paths[1], swap)
    except (AttributeError, TypeError):
        # No such function, or no C library to ask (Windows)
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))


def _sync_files(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(Path(parent, name), "rb") as file:
                os.fsync(file.fileno())


def _sync_folders(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        _sync(Path(parent))


def _sync(folder: Path) -> None:
    # Some file systems refuse to sync a folder: its files are safe all the same
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
