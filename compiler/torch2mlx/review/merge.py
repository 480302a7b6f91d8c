"""A user's edits and a newly generated text in one: a three-way merge.

The base is the text as it was generated before; git does the merging.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch2mlx.errors import InputError
from torch2mlx.review.record import read_record
from torch2mlx.review.texts import text_of

LABELS = ("your edits", "generated before", "generated now")
MARKER = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
# git's exit status is the number of conflicts, or beyond this an error
MOST_CONFLICTS = 127


@dataclass(frozen=True)
class Merge:
    """What a folder's texts become when it is written again.

    Attributes:
        folder: The folder.
        before: File name -> its text in the folder now, None where there is none.
        texts: File name -> its new text.
        edited: The files in which edits are kept.
        conflicts: File name -> how many conflicts are marked in its new text.
        saved: Files to add: what cannot be merged, since nobody knows what was edited in it.
    """

    folder: Path
    before: dict[str, str | None]
    texts: dict[str, str]
    edited: list[str] = field(default_factory=list)
    conflicts: dict[str, int] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """What a person should know of it."""
        lines = [f"the edits in {name} are kept" for name in self.edited]
        for name in self.saved:
            original = name.partition(".orig")[0]
            lines.append(
                f"{original} was there, but no record of how it was generated: it is now {name}"
            )
        return lines

    def conflict(self) -> str:
        """The message for marked conflicts, "" where there are none."""
        return "\n".join(
            f"{count} conflict{'s' if count > 1 else ''} between your edits and the newly generated "
            f"code: look for <<<<<<< in {self.folder / name}"
            for name, count in self.conflicts.items()
        )

    def diff(self) -> str:
        """What writing would change, as a unified diff; "" for nothing."""
        return "".join(self._diffs())

    def _diffs(self) -> Iterator[str]:
        for name, new in self.texts.items():
            path = str(self.folder / name)
            yield unified(self.before[name] or "", new, path, f"{path} (recompiled)")

    def check_unchanged(self) -> None:
        """Ensure that nobody has edited the files since they were read.

        Raises:
            InputError: Someone has.
        """
        for name, text in self.before.items():
            if text_of(self.folder / name) != text:
                raise InputError(
                    f"{self.folder / name} was changed in the meantime: nothing is written, run this again"
                )


def merge_into(folder: Path, texts: dict[str, str]) -> Merge:
    """What the texts of a folder become when it is written again.

    Args:
        folder: The folder, which need not exist.
        texts: File name -> the newly generated text.

    Raises:
        InputError: A file has unresolved conflicts or is no UTF-8, or there is no git to merge with.
    """
    record = read_record(folder)
    result = Merge(folder, {name: text_of(folder / name) for name in texts}, {})
    for name, new in texts.items():
        mine, base = result.before[name], record.texts.get(name) if record else None
        if mine is None or mine in (new, base):
            result.texts[name] = new
        elif base is None:
            result.texts[name] = new
            if not name.endswith(".json"):
                result.saved[_free(folder, name)] = mine
        elif name.endswith(".json"):
            result.texts[name] = _merged_json(mine, base, new)
            result.edited.append(name)
        else:
            _merge_text(result, name, mine, base, new)
    return result


def _merge_text(result: Merge, name: str, mine: str, base: str, new: str) -> None:
    if MARKER.search(mine):
        raise InputError(
            f"{result.folder / name} has unresolved conflicts: look for <<<<<<< in it"
        )
    text, count = three_way(mine, base, new)
    result.texts[name] = text
    result.edited.append(name)
    if count:
        result.conflicts[name] = count


def three_way(mine: str, base: str, new: str) -> tuple[str, int]:
    """Two changed versions of a text in one, and how many conflicts are marked in it.

    Args:
        mine: The edited text.
        base: What both come from.
        new: The newly generated text.

    Raises:
        InputError: There is no git.
    """
    if base == new:
        return mine, 0
    with tempfile.TemporaryDirectory(prefix="torch2mlx-") as scratch:
        paths = [Path(scratch, name) for name in ("mine", "base", "new")]
        for path, text in zip(paths, (mine, base, new), strict=True):
            path.write_bytes(text.encode())
        labels = [part for label in LABELS for part in ("-L", label)]
        command = ["git", "merge-file", "-p", "--diff3", *labels, *map(str, paths)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError as error:
            raise InputError(
                "the file was edited since it was generated, and there is no git to merge with: "
                "install git, or name another folder"
            ) from error
    if not 0 <= done.returncode <= MOST_CONFLICTS:
        why = done.stderr.decode(errors="replace").strip()
        raise InputError(f"git cannot merge the edited file: {why}")
    return done.stdout.decode(), done.returncode


def _merged_json(mine: str, base: str, new: str) -> str:
    """The new object with the values that the user has added or changed."""
    try:
        own, old, made = (json.loads(text) for text in (mine, base, new))
        kept = {k: v for k, v in own.items() if k not in old or old[k] != v}
        return json.dumps(made | kept, indent=4, sort_keys=True) + "\n"
    except (ValueError, AttributeError) as error:
        raise InputError(f"an edited file is no JSON object: {error}") from error


def unified(old: str, new: str, before: str, after: str) -> str:
    """A unified diff; "" where there is no difference."""
    lines = difflib.unified_diff(
        old.splitlines(True), new.splitlines(True), before, after
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in lines
    )


def _free(folder: Path, name: str) -> str:
    """A name for a copy that no file has."""
    number, found = 1, f"{name}.orig"
    while (folder / found).exists():
        number += 1
        found = f"{name}.orig{number}"
    return found
