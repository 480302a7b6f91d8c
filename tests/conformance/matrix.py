"""The support matrix: what the mapping tables hold, and what became of PyTorch's own samples of it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch._ops import OpOverload

import torch2mlx.layers
import torch2mlx.ops  # noqa: F401 - both fill the tables
from torch2mlx.lower.registry import LAYERS, OPS

DOCS = Path(__file__).parents[2] / "docs"
DATA, PAGE = DOCS / "support-matrix.json", DOCS / "support-matrix.md"
MOST = 4  # targets that a row names

HEAD = """\
# Support matrix

Which ATen operators the op and layer tables map, and what became of PyTorch's own samples of them: `op_db`
(operators) and `module_db` (`nn` modules) with inputs in float32, int64, bool and complex64. A sample is
right when the generated file ran and gave PyTorch's structure, dtypes, shapes and numbers (1e-5 absolute
or 1e-4 relative; integers exactly), refused when the compiler named the operator and the reason, wrong or a
crash otherwise. A gradient is right when that of a random projection of the outputs agrees to 1e-3.

Made by `benchmarks/operators.py --write`; a test checks that it fits the tables.
"""


def write(rows: list[dict[str, Any]]) -> None:
    """Write the data and the page from the rows of a full run."""
    DATA.write_text(json.dumps(summary(rows), indent=1, sort_keys=True) + "\n")
    PAGE.write_text(render(json.loads(DATA.read_text())))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of a run, counted by database entry and by ATen overload."""
    entries: dict[str, dict[str, Any]] = {}
    overloads: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = entries.setdefault(
            row["op"], {"status": Counter(), "gradient": Counter()}
        )
        entry["status"][row["status"]] += 1
        if row.get("gradient"):
            entry["gradient"][row["gradient"]] += 1
        if row["status"] not in ("right", "not captured"):
            entry.setdefault("why", _reason(row["why"]))
        touched = row.get("refused") or row["aten"]
        for name in touched:
            if "." not in name:
                continue
            found = overloads.setdefault(
                name, {"status": Counter(), "gradient": Counter(), "targets": Counter()}
            )
            found["status"][row["status"]] += 1
            if row.get("gradient"):
                found["gradient"][row["gradient"]] += 1
            found["targets"].update(row["aten"].get(name, {}))
    return {"entries": entries, "overloads": overloads}


def _reason(text: str) -> str:
    """Why a sample is not right, without the place where it stands."""
    text = re.sub(r"^UnsupportedError: \d+ unsupported operator calls?: ", "", text)
    text = re.sub(r" in \S+ \(\w+\)| in the model \(\w+\)", "", text)
    return re.sub(r" at \S+?:\d+: .*?\)(?= )", "", text)[:160]


def render(data: dict[str, Any]) -> str:
    """The page: totals, ATen operators, modules and what is refused."""
    parts = [HEAD, *_totals(data["entries"]), *_operators(data["overloads"])]
    parts += [*_modules(data["entries"]), *_refused(data["entries"])]
    return "\n".join(parts) + "\n"


def _totals(entries: dict[str, Any]) -> Iterator[str]:
    yield "## In all\n"
    yield _row("", "entries", "all right", "samples", "right", "refused", "wrong")
    yield _row("---", *["---:"] * 6)
    groups = {
        "operators (`op_db`)": [e for n, e in entries.items() if not is_module(n)],
        "modules (`module_db`)": [e for n, e in entries.items() if is_module(n)],
    }
    for label, group in groups.items():
        status = Counter()
        for entry in group:
            status.update(entry["status"])
        captured = [e for e in group if set(e["status"]) != {"not captured"}]
        whole = sum(set(e["status"]) <= {"right", "not captured"} for e in captured)
        bad = status["wrong"] + status["crash"]
        count = status["right"] + status["refused"] + bad
        yield _row(
            label, len(captured), whole, count, status["right"], status["refused"], bad
        )
    gradients = Counter()
    for entry in entries.values():
        gradients.update(entry["gradient"])
    yield (
        f"\nGradients: right for {gradients['right']} samples; {gradients['wrong']} differ, and for "
        f"{gradients['none']} MLX has none.\n"
    )


def is_module(name: str) -> bool:
    """Whether an entry is one of `module_db`."""
    return re.fullmatch(r"nn\.[A-Z]\w+", name) is not None


def _operators(overloads: dict[str, Any]) -> Iterator[str]:
    mapped: dict[str, list[OpOverload]] = defaultdict(list)
    for overload in {*OPS, *LAYERS}:
        mapped[_base(str(overload))].append(overload)
    yield "## ATen operators\n"
    yield _row("operator", "overloads", "in MLX", "right", "refused", "gradient")
    yield _row("---", "---", "---", "---:", "---:", "---")
    for base in sorted(mapped):
        names = sorted(str(o).rpartition(".")[2] for o in mapped[base])
        found = [overloads.get(f"{base}.{name}") for name in names]
        known = [f for f in found if f is not None]
        status, gradient, targets = Counter(), Counter(), Counter()
        for one in known:
            status.update(one["status"])
            gradient.update(one["gradient"])
            targets.update(one["targets"])
        layers = any(o in LAYERS for o in mapped[base])
        yield _row(
            f"`{base.removeprefix('aten.')}`",
            ", ".join(names),
            _targets(targets) + (" (layer)" if layers and not targets else ""),
            status["right"] or "",
            status["refused"] or "",
            _gradient(gradient),
        )
    yield ""


def _base(overload: str) -> str:
    return overload.rpartition(".")[0]


def _targets(targets: Counter[str]) -> str:
    ranked = sorted(targets, key=lambda t: (-targets[t], t))
    shown = ", ".join(f"`{name}`" for name in ranked[:MOST]).replace("|", "\\|")
    return f"{shown}, ..." if len(ranked) > MOST else shown


def _gradient(gradient: Counter[str]) -> str:
    if not gradient:
        return ""
    if set(gradient) == {"right"}:
        return "right"
    if set(gradient) == {"none"}:
        return "none in MLX"
    return f"{gradient['right']} of {sum(gradient.values())}"


def _modules(entries: dict[str, Any]) -> Iterator[str]:
    yield "## Modules\n"
    yield _row("module", "right", "refused", "gradient")
    yield _row("---", "---:", "---:", "---")
    for name in sorted(filter(is_module, entries)):
        status = entries[name]["status"]
        if set(status) == {"not captured"}:
            continue
        yield _row(
            f"`{name}`",
            status.get("right", ""),
            status.get("refused", ""),
            _gradient(Counter(entries[name]["gradient"])),
        )
    yield ""


def _refused(entries: dict[str, Any]) -> Iterator[str]:
    yield "## What is refused\n"
    yield _row("operator or module", "samples", "of", "first reason")
    yield _row("---", "---:", "---:", "---")
    for name in sorted(entries):
        status = entries[name]["status"]
        count = status.get("refused", 0)
        if count:
            of = sum(status.values()) - status.get("not captured", 0)
            yield _row(f"`{name}`", count, of, _escaped(entries[name].get("why", "")))
    yield "\n## What torch.export cannot capture\n"
    names = [n for n, e in entries.items() if set(e["status"]) == {"not captured"}]
    yield ", ".join(f"`{name}`" for name in sorted(names)) + "."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
