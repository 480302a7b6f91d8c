"""Compile and run the samples of PyTorch's own test databases, and say what came out right.

    .venv/bin/python benchmarks/operators.py [NAME ...] [--write] [--jobs 2]

Prints one line for each operator or module that is not all right, and the totals. `--write` runs all of them and
writes docs/support-matrix.json and, from it and the mapping tables, docs/support-matrix.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["MLX_ENABLE_TF32"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from tests.conformance.check import Outcome, check  # noqa: E402
from tests.conformance.samples import databases  # noqa: E402

SECONDS = 120  # that one sample may take
STATUSES = ("right", "refused", "wrong", "crash", "not captured")


def main() -> int:
    """Run the samples; 1 if any is wrong or crashes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="operators or modules, as globs")
    parser.add_argument("--write", action="store_true", help="write the support matrix")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _serve()
        return 0
    start = time.monotonic()
    names = list(_selected(options.names))
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for done, part in enumerate(pool.map(_run, names), 1):
            rows += part
            print(f"\r{done} of {len(names)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for worker in _workers:
        worker.kill()
    _print(rows, time.monotonic() - start)
    if options.write and not options.names:
        from tests.conformance.matrix import write

        write(rows)
    return int(any(row["status"] in ("wrong", "crash") for row in rows))


def _selected(patterns: list[str]) -> Iterator[str]:
    for name in databases():
        if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns):
            yield name


_local = threading.local()
_workers: list[subprocess.Popen[str]] = []


def _run(name: str) -> list[dict[str, Any]]:
    """The rows of one operator, from a process that may die of it."""
    rows: list[dict[str, Any]] = []
    tried: set[str] = set()
    while True:
        worker = getattr(_local, "worker", None)
        if worker is None or worker.poll() is not None:
            worker = _local.worker = _started()
        print(json.dumps([name, len(rows)]), file=worker.stdin, flush=True)
        begun = None
        while True:
            timer = threading.Timer(SECONDS + 60, worker.kill)
            timer.start()
            line = worker.stdout.readline()
            timer.cancel()
            message = json.loads(line) if line else None
            if message is None:  # it died, or took too long
                worker.kill()
                worker.wait()
                if begun is not None and rows and rows[-1]["key"] == begun:
                    rows[-1]["gradient"] = "wrong"  # it died of that
                    break
                if begun is not None and begun not in tried:
                    tried.add(begun)  # again, in a process that has done nothing before
                    break
                why = "the process dies or takes too long"
                rows.append(_row(name, begun, Outcome("crash", why)))
                if begun is None:  # drawing the samples kills it
                    return rows
                break
            if message == "done":
                return rows
            if isinstance(message, str):
                begun = message
            elif len(message) == 1:
                rows[-1] |= message
            else:
                rows.append(message)


def _started() -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, __file__, "--worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    _workers.append(worker)
    return worker


def _serve() -> None:
    """Read `[name, samples to skip]` from stdin, write the start and the outcome of each sample."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what models print is not a message
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name, skip = json.loads(line)
        for i, sample in enumerate(databases()[name]()):
            if i < skip:
                continue
            print(json.dumps(sample.key), file=out)
            outcome = check(sample)
            print(json.dumps(_row(name, sample.key, outcome)), file=out)
            if outcome.compare_gradients is not None:
                outcome.compare_gradients()
                print(json.dumps({"gradient": outcome.gradient}), file=out)
        print(json.dumps("done"), file=out)


def _row(name: str, key: str | None, outcome: Outcome) -> dict[str, Any]:
    return {
        "op": name,
        "key": key,
        "status": outcome.status,
        "why": outcome.why,
        "aten": outcome.targets,
        "refused": outcome.refused,
    }


def _print(rows: list[dict[str, Any]], seconds: float) -> None:
    totals: Counter[str] = Counter()
    gradients: Counter[str] = Counter()
    for name in dict.fromkeys(row["op"] for row in rows):
        own = [row for row in rows if row["op"] == name]
        counts = Counter(row["status"] for row in own)
        totals += counts
        wrong = [row for row in own if row.get("gradient") == "wrong"]
        gradients.update(row["gradient"] for row in own if row.get("gradient"))
        bad = [r for r in own if r["status"] not in ("right", "not captured")] + wrong
        if bad:
            found = ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s])
            found += f", {len(wrong)} wrong gradients" if wrong else ""
            print(f"{name:<40} {found}; {bad[0]['key']}: {bad[0]['why'][:120]}")
    print(", ".join(f"{totals[status]} {status}" for status in STATUSES))
    found = ", ".join(
        f"{gradients[kind]} {kind}" for kind in ("right", "wrong", "none")
    )
    print(f"gradients: {found}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
