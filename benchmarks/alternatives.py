"""Compare the ways from PyTorch to MLX on 64 models: what runs and matches, what is refused, what is wrong.

    .venv/bin/python benchmarks/alternatives.py [WAY ...] [--folder DIR] [--python WAY=PATH] [--write]

The models are those of `alternatives_models.py`; a result matches when every output has PyTorch's shape and
max|a - b| <= 1e-4 + 1e-3 max|b|, on other inputs than those of the conversion. Every alternative is installed
with pip in an environment of its own on top of this one, or found in the interpreter that `--python` names.
Rows are kept in DIR/rows.jsonl, and only what is missing is run. `--write` replaces the table in the README;
what was not run on all 64 models keeps an earlier figure, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROUTES = Path(__file__).with_name("alternatives_routes.py")
BEGIN = "<!-- alternatives: benchmarks/alternatives.py --write -->"
END = "<!-- end of alternatives -->"
COLUMNS = (
    *("", "of 64 models", "source code", "MLX alone"),
    *("right or refused", "trainable module"),
)
# Status of a row -> how a number of them is told, in this order
TOLD = {
    "match": "run and match",
    "whole": "are one whole MLX partition",
    "converted": "convert",
    "parts": "are cut into parts",
    "wrong": "wrong",
    "refused": "refused or raise",
}
RUNNING = {"match", "wrong"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """One way to MLX.

    Attributes:
        title: Its name in the table; a package in braces becomes that package's version.
        source: Whether there is source code.
        alone: Whether the result runs with MLX alone.
        honest: Whether it is right or refuses, where the rows do not say.
        trainable: Whether it is a module that can be trained.
        packages: What pip installs, None for a way that the script does not run.
        earlier: What was measured before, on another choice of 64 models.
        options: For pip.
    """

    title: str
    source: str
    alone: str
    honest: str
    trainable: str
    packages: tuple[str, ...] | None = None
    earlier: str = ""
    options: tuple[str, ...] = field(default=())


WAYS = {
    "torch2mlx": Way(
        *("torch2mlx, this one", "yes", "yes", "", "yes"),
        packages=(),
    ),
    "older": Way(
        "torch2mlx, the older project of this name (three versions)",
        *("yes", "where it runs", "no: claims full coverage on 38", "where it runs"),
        earlier="0 run and match (5 with transformers 4.51)",
    ),
    "executorch": Way(
        *("ExecuTorch {executorch}, MLX delegate", "no"),
        "no: its own runtime, on Apple hardware",
        *("what is not delegated runs elsewhere", "no"),
        packages=("executorch==1.5.1",),
        earlier="37 are one whole MLX partition",
    ),
    "onnx2mlx": Way(
        "`torch.onnx`, then onnx2mlx {onnx2mlx}",
        *("no: a closure, no module, no weights file", "no", "not examined", "no"),
        # It asks for Python 3.12, and runs on 3.11
        packages=("onnx2mlx==0.0.5", "onnxscript==0.7.2"),
        options=("--ignore-requires-python",),
        earlier="39 run in MLX and match (about 52 with two small repairs)",
    ),
    "coremltools": Way(
        *("coremltools {coremltools}", "no", "no: Core ML instead of MLX"),
        *("not examined", "no"),
        # Its converters call int() on arrays of one element, which later numpy refuses
        packages=("coremltools==9.0", "numpy<2.3"),
        earlier="45 of 61 convert",
    ),
    "onnxruntime": Way(
        "`torch.onnx` and ONNX Runtime {onnxruntime}, for reference",
        *("no", "no: no MLX", "yes on these", "no"),
        packages=("onnxruntime", "onnxscript==0.7.2"),
        earlier="64 match",
    ),
    "ports": Way(
        "ports by hand (mlx-examples, mlx-lm, mlx-image and others)",
        *("yes", "yes", "no: wrong eps, GELU variant, direction of a roll", "yes"),
        earlier="of 53 other model pairs 42 agree, 11 are off by 2e-4 to 5e-1",
    ),
}
# Versions of what has an earlier figure
EARLIER = {
    "executorch": "1.5.1",
    "onnx2mlx": "0.0.5",
    "coremltools": "9.0",
    "onnxruntime": "",
}


def table(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """The lines of the Markdown table.

    Args:
        rows: What was run; of two rows for the same way and model the later one counts.
        names: The models. A way with a row for each of them gets its counts, others their earlier figure.
    """
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for key, way in WAYS.items():
        found = {row["model"]: row for row in rows if row["way"] == key}
        chosen = [found[name] for name in names if name in found]
        versions, told, honest = EARLIER, f"earlier: {way.earlier}", way.honest
        if len(chosen) == len(names) or not way.earlier:
            for row in chosen:
                versions = versions | row.get("versions", {})
            told, honest = _told(chosen), _honest(chosen, way)
            if len(chosen) < len(names):
                told += f" (of {len(chosen)} run so far)"
        title = way.title.format(**versions).replace(" ,", ",")
        lines.append(_line([title, told, way.source, way.alone, honest, way.trainable]))
    return lines


def _told(rows: Sequence[Row]) -> str:
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{counts[s]} {text}" for s, text in TOLD.items() if counts[s])


def _honest(rows: Sequence[Row], way: Way) -> str:
    counts = Counter(row["status"] for row in rows)
    if not counts.keys() & RUNNING:
        return way.honest
    return f"no: {counts['wrong']} wrong" if counts["wrong"] else "yes on these"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(readme: Path, lines: Sequence[str]) -> None:
    """Replace what is between the markers of `readme`."""
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))


def environment(folder: Path, key: str) -> Path:
    """The interpreter of an environment with an alternative, which is made where it is missing.

    It is on top of the running one, whose packages it sees: torch and the models are the same for all.

    Raises:
        subprocess.CalledProcessError: pip cannot install it.
    """
    way, home = WAYS[key], folder / key
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    venv.create(home, with_pip=True, clear=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    below = home / "lib" / version / "site-packages" / "below.pth"
    below.write_text("\n".join(site.getsitepackages()))
    constraints = home / "constraints.txt"
    constraints.write_text("torch==2.13.0\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "-c", str(constraints)]
    subprocess.run([*command, *way.options, *(way.packages or ())], check=True)
    (home / "ready").touch()
    return python


def measure(key: str, python: Path, names: Sequence[str], kept: Path) -> None:
    """Run a way on models, and add each row to the file `kept` as it comes."""
    command = [str(python), str(ROUTES), key, *names]
    quiet = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if not text.startswith('{"way"'):
                continue  # what a library prints
            row = json.loads(text)
            with kept.open("a") as file:
                file.write(text)
            print(row["way"], row["model"], row["status"], row["detail"], flush=True)
    if process.returncode:
        raise SystemExit(f"{key}: {ROUTES.name} ended with code {process.returncode}")


def read(kept: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    return (
        [json.loads(t) for t in kept.read_text().splitlines()] if kept.exists() else []
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and print or write the table."""
    from alternatives_models import NAMES

    runnable = [key for key, way in WAYS.items() if way.packages is not None]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(runnable))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "alternatives")
    parser.add_argument("--python", action="append", default=[], metavar="WAY=PATH")
    parser.add_argument("--models", nargs="+", default=NAMES, help="only these")
    parser.add_argument("--again", action="store_true", help="also what was run before")
    parser.add_argument("--write", action="store_true", help="update the README")
    options = parser.parse_args(argv)
    for key in options.ways:
        if key not in runnable:
            parser.error(f"no way {key!r}; the ways are {', '.join(runnable)}")
    pythons = {"torch2mlx": Path(sys.executable)}
    for given in options.python:
        key, _, path = given.partition("=")
        pythons[key] = Path(path)
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "rows.jsonl"
    for key in options.ways or runnable:
        done = {row["model"] for row in read(kept) if row["way"] == key}
        todo = [name for name in options.models if options.again or name not in done]
        if not todo:
            continue
        try:
            python = pythons.get(key) or environment(options.folder, key)
        except subprocess.CalledProcessError:
            print(f"{key}: cannot be installed here; it keeps its earlier figure")
            continue
        measure(key, python, todo, kept)
    lines = table(read(kept), NAMES)
    print(*lines, sep="\n")
    if options.write:
        write(ROOT / "README.md", lines)


if __name__ == "__main__":
    main()
