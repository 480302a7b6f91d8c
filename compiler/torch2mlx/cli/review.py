"""What the command does with folders that are there already: check, compare and verify them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torch2mlx.cli.arguments import Options

if TYPE_CHECKING:
    from torch2mlx.api import Program
    from torch2mlx.review.merge import Merge
    from torch2mlx.saving import Output
    from torch2mlx.writing import Extras

MODEL_FILE = "model_mlx.py"

Printer = Callable[[dict[str, Any], TextIO], None]


def extras_of(options: Options) -> Extras:
    """What the command line wants in the folder beside the model."""
    from torch2mlx.writing import Extras

    return Extras(options.certificate, options.annotate, options.source_map)


def output_of(options: Options, program: Program, checkpoint: Path | None) -> Output:
    """The weights that the command line wants."""
    return program.output(
        weights=checkpoint,
        dtype=options.dtype,
        quantize=options.quantize,
        group_size=options.group_size,
        mode=options.mode,
    )


def written(program: Program, merge: Merge) -> Program:
    """The program as it will be written: with the edits that are kept, but for conflicts."""
    if merge.conflicts or MODEL_FILE not in merge.edited:
        return program
    return program.with_source(merge.texts[MODEL_FILE])


def diff(old: Path, new: Path, options: Options, stdout: TextIO, json: Printer) -> bool:
    """Print the difference of two folders; whether there is none."""
    from torch2mlx.review.compare import diff_folders

    found = diff_folders(old, new)
    if options.json:
        json(
            {"status": "different" if found.differs else "same", **found.to_dict()},
            stdout,
        )
    elif not options.quiet:
        print("\n".join(found.lines()), file=stdout)
    return not found.differs


def check(
    program: Program,
    folder: Path,
    output: Output,
    options: Options,
    stdout: TextIO,
    json: Printer,
) -> bool:
    """Print what compiling again would change in the folder's texts; whether that is nothing."""
    merge = program.merged(folder, output, extras_of(options))
    text = merge.diff()
    if options.json:
        status = "changed" if text else "unchanged"
        value = {"status": status, "folder": str(folder), "diff": text}
        json({**value, "conflicts": merge.conflicts}, stdout)
    elif not options.quiet:
        stdout.write(text)
        for line in [*merge.notes(), merge.conflict()]:
            if line:
                print(line, file=stdout)
        if not text:
            print(f"{folder} would stay as it is", file=stdout)
    return not text


def verify(
    program: Program, folder: Path, options: Options, stdout: TextIO, json: Printer
) -> bool:
    """Print the comparison of a folder, as it is now, with PyTorch; whether they agree."""
    from torch2mlx.verify.folder import compare_folder

    found = compare_folder(program, folder, repro=options.repro)
    if options.json:
        status = "ok" if found.ok else "mismatch"
        value = {"status": status, "folder": str(folder)}
        json({**value, "verification": found.to_dict()}, stdout)
    elif not options.quiet or not found.ok:
        print("\n".join(found.lines()), file=stdout)
    return found.ok
