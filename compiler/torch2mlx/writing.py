"""Writing a compiled model to its folder: what is generated, merged with the edits that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mlx.certify import Certificate, input_records
from torch2mlx.emit import emit
from torch2mlx.emit.loading import PLAIN
from torch2mlx.emit.provenance import annotated, origins, source_map
from torch2mlx.errors import ConflictError
from torch2mlx.review.merge import Merge, merge_into
from torch2mlx.review.record import RECORD_FILE, Record
from torch2mlx.saving import (
    CONFIG_FILE,
    MAP_FILE,
    MODEL_FILE,
    Output,
    config_text,
    write_folder,
)

if TYPE_CHECKING:
    from torch2mlx.api import Program


@dataclass(frozen=True)
class Extras:
    """What a folder holds beside the model.

    Attributes:
        certificate: Recorded inputs and outputs, and a `--selftest` in the generated file.
        annotate: Comments in the generated file that name the author's lines.
        source_map: A file that maps the generated lines to the author's.
    """

    certificate: bool = False
    annotate: bool = False
    source_map: bool = False


def generated_text(program: Program, output: Output, extras: Extras) -> str:
    """The text of the generated file, before it is merged with edits."""
    text = program.source
    if output.loading != PLAIN or extras.certificate:
        text = emit(
            program.outlined,
            program.captured,
            program.original or program.plan,
            program.captured.model_class,
            program.name,
            output.loading,
            extras.certificate,
        )
    if extras.annotate:
        found = origins(text, program.outlined, program.captured)
        text = annotated(text, found)
    return text


def merged(program: Program, path: Path, output: Output, extras: Extras) -> Merge:
    """What the texts of a folder become when `write` writes it.

    Raises:
        InputError: A file has unresolved conflicts, or there is no git to merge with.
    """
    return merge_into(path, _texts(program, output, extras))


def _texts(program: Program, output: Output, extras: Extras) -> dict[str, str]:
    config = config_text(program.config | output.config)
    return {MODEL_FILE: generated_text(program, output, extras), CONFIG_FILE: config}


def write(
    program: Program,
    path: Path,
    output: Output,
    extras: Extras,
    files: Mapping[str, str | bytes] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write the folder, all of it or nothing; edits of the generated file are kept.

    Args:
        program: The compiled model.
        path: The folder.
        output: Its weights.
        extras: What it holds beside the model.
        files: Further files.
        progress: Called with the number of weight bytes written since the last call.

    Raises:
        InputError: The folder cannot be written, or there is no certificate to give.
        ConflictError: Edits conflict with what is generated now; the folder is written, the conflicts
            are marked in its file.
    """
    certificate = Certificate(program, output) if extras.certificate else None
    texts = _texts(program, output, extras)
    result = merge_into(path, texts)
    record = Record(texts, input_records(program)).to_json()
    every = {**(files or {}), **result.saved, **result.texts, RECORD_FILE: record}
    if extras.source_map and not result.conflicts:
        found = origins(result.texts[MODEL_FILE], program.outlined, program.captured)
        every[MAP_FILE] = source_map(MODEL_FILE, found)

    def last(stage: Path) -> None:
        if certificate is not None:
            certificate.write(stage)
        result.check_unchanged()

    write_folder(path, output, every, progress, last)
    if result.conflicts:
        raise ConflictError(result.conflict())
    return path
