"""Imports go one way: each part of the compiler knows only those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "compiler" / "torch2mlx"

# Every part may import itself and what is named here.
MAY_IMPORT = {
    "arrays": set(),
    "errors": set(),
    "silence": set(),
    "stages": set(),
    "ir": set(),
    "hyperparameters": {"silence"},
    "capture": {"errors", "silence", "ir"},
    "templates": set(),
    "decorator": {"errors", "api"},
    "source": {"errors", "silence", "capture", "decorator", "weights"},
    "passes": {"errors", "ir", "capture", "weights"},
    "lower": {"errors", "ir", "capture", "ops", "layers", "weights"},
    "ops": {"ir", "lower"},
    "layers": {"ir", "lower", "ops"},
    "layout": {"errors", "ir", "capture", "passes", "lower", "ops", "weights"},
    "outline": {"errors", "ir", "capture", "lower"},
    "weights": {"errors"},
    "emit": {
        "errors",
        "ir",
        "capture",
        "hyperparameters",
        "lower",
        "ops",
        "outline",
        "weights",
    },
    "report": {"ir", "layout"},
    "extend": {"lower"},
    "converter": {"errors", "weights"},
    "quantize": {"arrays", "weights"},
    "restore": {"errors", "quantize", "weights"},
    "saving": {"errors", "emit", "quantize", "weights"},
    "review": {"errors", "weights"},
}
SEES_EVERYTHING = {
    "__init__",
    "analysis",
    "api",
    "certify",
    "cli",
    "dynamo",
    "verify",
    "writing",
}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part in SEES_EVERYTHING:
        return
    found = {
        name.split(".")[1] for name in imports(path) if name.startswith("torch2mlx.")
    }
    parts = {part_of(p) for p in ROOT.rglob("*.py")}
    assert (found & parts) - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "weights").glob("*.py"), *(ROOT / "converter").glob("*.py")]),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_weights_need_numpy_alone(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & {"torch", "mlx"}
