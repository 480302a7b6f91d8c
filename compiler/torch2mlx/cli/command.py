"""`main`: from the command line to the folder, and to the exit status."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch2mlx
from torch2mlx.cli import review
from torch2mlx.cli.arguments import Options, parse
from torch2mlx.cli.outcome import Outcome
from torch2mlx.errors import ConflictError, InputError, Torch2MLXError

if TYPE_CHECKING:
    from torch2mlx.analysis import Analysis
    from torch2mlx.api import Program
    from torch2mlx.source import Source

DONE, MISMATCH, REFUSED, INTERNAL, INTERRUPTED = 0, 1, 2, 70, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `torch2mlx-compile`.

    Args:
        argv: Its arguments; None takes those of the process.

    Returns:
        The exit status: 0 done, 1 compiled but verification failed, or analyzed and it does not
        compile as it is, 2 refused, 70 a bug of torch2mlx, 130 interrupted.
    """
    options = parse(argv)
    # Before MLX multiplies anything: comparisons need exact float32 products on its GPUs, too
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    stdout = sys.stdout
    # A dump, a diff and a JSON object have stdout for themselves, whatever the model's code prints
    alone = options.dump or options.json or options.check
    try:
        with redirect_stdout(sys.stderr) if alone else nullcontext():
            status = _run(options, stdout)
        stdout.flush()
        return status
    except KeyboardInterrupt:
        print("torch2mlx-compile: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has seen enough; the interpreter would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return DONE
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        print(
            f"torch2mlx-compile: internal error: {text}\nThis is a bug in torch2mlx: "
            "please report it with the lines above.",
            file=sys.stderr,
        )
        return INTERNAL


def _run(options: Options, stdout: TextIO) -> int:
    try:
        if options.output is not None and not options.check:
            _check_folder(options.output)
        if options.to_torch is not None:
            return _to_torch(options.to_torch, options, stdout)
        if options.diff is not None:
            old, new = options.diff
            same = review.diff(old, new, options, stdout, _print_json)
            return DONE if same else MISMATCH
        _check_installed()
        if options.check or options.verify_folder is not None:
            return DONE if _reviewed(options, stdout) else MISMATCH
        if options.analyze:
            return DONE if _analyzed(options, stdout).ok else MISMATCH
        outcome = _outcome(options)
        _print(options, outcome, stdout)
        return DONE if outcome.ok else MISMATCH
    except Torch2MLXError as error:
        print(f"torch2mlx-compile: error: {error}", file=sys.stderr)
        if options.json:
            from torch2mlx.cli import record

            spec = options.source or str(options.to_torch or options.diff)
            _print_json(record.refusal(spec, error), stdout)
        return REFUSED


def _to_torch(folder: Path, options: Options, stdout: TextIO) -> int:
    from torch2mlx.restore import restore

    name = folder.resolve().name.removesuffix("_mlx")
    output = options.output or Path(f"{name}_torch")
    result = restore(folder, output)
    if options.json:
        _print_json({"status": "ok", **result}, stdout)
    elif not options.quiet:
        print(f"{result['tensors']} tensors written to {output}", file=stdout)
        dropped = result["dropped"]
        if dropped:
            names = f"{', '.join(dropped[:3])}{', ...' if dropped[3:] else ''}"
            text = f"{len(dropped)} were dropped when it was compiled: {names}"
            print(text, file=stdout)
    return DONE


def _check_installed() -> None:
    try:
        import rich  # noqa: F401

        _ = torch2mlx.compile
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in torch2mlx._COMPILE_EXTRA:
            raise
        raise InputError(
            f"{package} is not installed: pip install 'torch2mlx[compile]'"
        ) from None


def _check_folder(path: Path) -> None:
    from torch2mlx.weights import check_folder

    check_folder(path)


def _outcome(options: Options) -> Outcome:
    from torch2mlx.cli.progress import Display
    from torch2mlx.silence import unlogged

    spec = options.source or ""
    display = Display(enabled=not options.quiet)
    with unlogged(), display.stages() as stage:
        source = _source(options, stage)
        if not (options.quiet or options.json):
            print(f"example inputs: {source.description}")
        folder = _folder(options, source) if options.writes else None
        program = _program(options, source, stage)
        if folder is None:
            return Outcome(spec, source, program, None, None, ())
        output = review.output_of(options, program, source.checkpoint)
        extras = review.extras_of(options)
        merge = program.merged(folder, output, extras)
        verification = None
        if options.verify and not program.report.stubs:
            stage("verify")
            verification = review.written(program, merge).verify(repro=options.repro)
            if not verification.ok:  # nothing to certify; what differs is worth more
                extras = replace(extras, certificate=False)
    with display.bytes_written(output.bytes) as progress:
        extra = {name: path.read_bytes() for name, path in source.files.items()}
        with suppress(ConflictError):  # the merge has told already
            program.write(folder, output, files=extra, extras=extras, progress=progress)
    files = tuple(sorted(os.listdir(folder)))
    return Outcome(spec, source, program, verification, folder, files, merge)


def _reviewed(options: Options, stdout: TextIO) -> bool:
    """`--check` and `--verify FOLDER`: whether all is as it should be."""
    from torch2mlx.cli.progress import Display
    from torch2mlx.silence import unlogged

    with unlogged(), Display(enabled=not options.quiet).stages() as stage:
        source = _source(options, stage)
        program = _program(options, source, stage)
        if options.verify_folder is not None:
            stage("verify")
            folder = options.verify_folder
            return review.verify(program, folder, options, stdout, _print_json)
        folder = options.output or _default_folder(options, source)
        output = review.output_of(options, program, source.checkpoint)
        return review.check(program, folder, output, options, stdout, _print_json)


def _source(options: Options, progress: Callable[[str], None]) -> Source:
    from torch2mlx.source import load

    progress("source")
    return load(
        options.source or "",
        options.inputs,
        trust_pickle=options.trust_pickle,
        task=options.task,
        weights=options.weights,
        values=options.needs_values,
    )


def _analyzed(options: Options, stdout: TextIO) -> Analysis:
    from torch2mlx.analysis import rendering
    from torch2mlx.cli.progress import Display, console
    from torch2mlx.silence import unlogged

    rendering.check(options.reports)
    with unlogged(), Display(enabled=not options.quiet).stages() as stage:
        source = _source(options, stage)
        found = torch2mlx.analyze(
            source.model,
            source.args,
            source.kwargs,
            program=source.program,
            progress=stage,
            **_compile_options(options, source, leave_out=("stubs", "conversion")),
        )
    found.inputs = source.description
    found.notes = [*found.notes, *source.notes]
    found.save(*options.reports)
    if options.json:
        _print_json(found.to_dict(), stdout)
    elif not options.quiet:
        rendering.print_analysis(console(stdout), found)
        if options.reports:
            names = ", ".join(map(str, options.reports))
            print(f"\nreport written to {names}", file=stdout)
    return found


def _program(
    options: Options, source: Source, progress: Callable[[str], None]
) -> Program:
    return torch2mlx.compile(
        source.model,
        source.args,
        source.kwargs,
        program=source.program,
        progress=progress,
        **_compile_options(options, source),
    )


def _compile_options(
    options: Options, source: Source, leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """Options of `torch2mlx.compile`: those of the command line before those of the source."""
    given = {
        "name": options.name,
        "io_layout": options.io_layout,
        "disable": options.disable,
        "fold_bn": options.fold_bn,
        "stubs": options.stubs,
    }
    chosen = {name: value for name, value in given.items() if value}
    if options.static:
        chosen["dynamic"] = False
    found = {"name": source.name, **source.options, **chosen}
    return {name: value for name, value in found.items() if name not in leave_out}


def _folder(options: Options, source: Source) -> Path:
    """Where to write; refused before the long work rather than after it."""
    if options.output is not None:
        return options.output
    folder = _default_folder(options, source)
    _check_folder(folder)
    return folder


def _default_folder(options: Options, source: Source) -> Path:
    name = re.sub(r"[^\w.-]", "_", options.name or source.name)
    return Path(f"{name}_mlx")


def _print(options: Options, outcome: Outcome, stdout: TextIO) -> None:
    from torch2mlx.cli import record, summary
    from torch2mlx.cli.progress import console

    if options.dump:
        text = outcome.program.dump(options.dump)
        stdout.write(text if text.endswith("\n") else f"{text}\n")
    elif options.json:
        _print_json(record.result(outcome), stdout)
    elif not options.quiet:
        people = console(stdout)
        if options.explain:
            summary.print_explanation(people, outcome.program.report)
        if outcome.folder is not None:
            summary.print_summary(people, outcome)
    if outcome.conflict:
        print(f"torch2mlx-compile: error: {outcome.conflict}", file=sys.stderr)
    if outcome.verification is not None and not outcome.verification.ok:
        lines = "\n".join(outcome.verification.lines())
        print(
            f"torch2mlx-compile: error: verification failed\n{lines}", file=sys.stderr
        )


def _print_json(value: dict[str, Any], stdout: TextIO) -> None:
    stdout.write(json.dumps(value, indent=2) + "\n")
