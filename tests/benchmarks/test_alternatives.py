"""The comparison with the alternatives: what counts as right, and how rows become the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The script, and the one that it starts; they import each other as scripts do."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import alternatives
    import alternatives_routes

    return alternatives, alternatives_routes


def rows(way: str, **status: str) -> list[dict[str, Any]]:
    return [{"way": way, "model": name, "status": s} for name, s in status.items()]


def cells(lines: list[str], title: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_counts(scripts: tuple[Any, Any]) -> None:
    alternatives, _ = scripts
    ours = rows("torch2mlx", a="match", b="refused", c="match")
    closure = rows("onnx2mlx", a="match", b="wrong", c="refused")
    for row in closure:
        row["versions"] = {"onnx2mlx": "9.9"}
    lines = alternatives.table([*ours, *closure], ("a", "b", "c"))
    assert len(lines) == 2 + len(alternatives.WAYS)
    told = "2 run and match, 1 refused or raise"
    assert cells(lines, "torch2mlx, this one")[1:] == [
        *(told, "yes", "yes", "yes on these", "yes")
    ]
    title, told, *_, honest, _ = cells(lines, "`torch.onnx`, then")
    assert title.endswith("onnx2mlx 9.9")
    assert told == "1 run and match, 1 wrong, 1 refused or raise"
    assert honest == "no: 1 wrong"


def test_what_does_not_run_here_is_not_called_right(scripts: tuple[Any, Any]) -> None:
    alternatives, _ = scripts
    lines = alternatives.table(rows("coremltools", a="converted"), ("a",))
    _, told, *_, honest, _ = cells(lines, "coremltools")
    assert (told, honest) == ("1 convert", "not examined")


def test_a_part_of_the_models_is_no_result(scripts: tuple[Any, Any]) -> None:
    alternatives, _ = scripts
    some = [*rows("coremltools", a="converted"), *rows("torch2mlx", a="wrong")]
    lines = alternatives.table(some, ("a", "b"))
    assert cells(lines, "coremltools 9.0")[1] == "earlier: 45 of 61 convert"
    assert cells(lines, "torch2mlx, this")[1] == "1 wrong (of 1 run so far)"


def test_a_later_row_counts(scripts: tuple[Any, Any]) -> None:
    alternatives, _ = scripts
    again = [*rows("torch2mlx", a="wrong"), *rows("torch2mlx", a="match")]
    lines = alternatives.table(again, ("a",))
    assert cells(lines, "torch2mlx, this")[1] == "1 run and match"


def test_the_readme_keeps_what_is_around(
    scripts: tuple[Any, Any], tmp_path: Path
) -> None:
    alternatives, _ = scripts
    page = tmp_path / "README.md"
    page.write_text(f"above\n{alternatives.BEGIN}\nold\n{alternatives.END}\nbelow\n")
    for _ in range(2):
        alternatives.write(page, ["| new |"])
        between = f"{alternatives.BEGIN}\n\n| new |\n\n{alternatives.END}"
        assert page.read_text() == f"above\n{between}\nbelow\n"
    text = (ROOT / "README.md").read_text()
    assert text.count(alternatives.BEGIN) == text.count(alternatives.END) == 1


def test_only_what_is_missing_is_run(
    scripts: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alternatives, _ = scripts
    kept = tmp_path / "rows.jsonl"
    kept.write_text(json.dumps(rows("torch2mlx", a="match")[0]) + "\n")
    started = []
    monkeypatch.setattr(alternatives, "measure", lambda *given: started.append(given))
    common = ["torch2mlx", "--folder", str(tmp_path), "--models", "a", "b"]
    alternatives.main(common)
    alternatives.main([*common, "--again"])
    assert [given[2] for given in started] == [["b"], ["a", "b"]]
    with pytest.raises(SystemExit, match="2"):
        alternatives.main(["older", "--folder", str(tmp_path)])


def test_right_and_wrong(scripts: tuple[Any, Any]) -> None:
    _, routes = scripts
    want = [torch.tensor([100.0, 1.0])]
    # 1e-4 + 1e-3 * 100
    near, far = np.array([100.1, 1.0]), np.array([100.2, 1.0])
    assert routes.judge(want, [near])[0] == "match"
    assert routes.judge(want, [far]) == ("wrong", "2e-03")
    assert routes.judge(want, [np.array([np.nan, 1.0])])[0] == "wrong"
    assert routes.judge(want, [np.array([100.0])])[0] == "wrong"
    assert routes.judge(want, [near, near])[0] == "wrong"


def test_models(scripts: tuple[Any, Any]) -> None:
    import alternatives_models as models

    assert len(set(models.NAMES)) == len(models.NAMES) == 64
    models.load_libraries()
    _, inputs, others = models.build("transformers:bert")
    assert inputs.keys() == others.keys()
    assert not torch.equal(inputs["input_ids"], others["input_ids"])
