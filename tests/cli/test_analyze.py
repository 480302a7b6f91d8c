"""`--analyze` and `--report`: what is printed and written, and the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from torch2mlx.cli import main

MODELS = """\
import torch
from torch import nn


class Fine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)


class Rare(Fine):
    def forward(self, x):
        print("loud")
        return torch.poisson(self.fc(x).abs())


class Branch(Fine):
    def forward(self, x):
        y = self.fc(x)
        return y if y.sum() > 0 else -y
"""


@pytest.fixture
def models(here: Path) -> Generator[Path, None, None]:
    (here / "models.py").write_text(MODELS)
    yield here
    sys.modules.pop("models", None)


def line(code: str) -> str:
    """`file:line: code` as messages have it."""
    number = [text.strip() for text in MODELS.splitlines()].index(code) + 1
    return f"models.py:{number}: {code}"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


def test_what_compiles(models: Path, capsys):
    assert main(["models.py:Fine", "--analyze"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Fine  models.Fine\nIt compiles.\n")
    assert "✓ fc Linear → nn.Linear  10 parameters, 32 FLOPs" in out
    assert "· example inputs: x: float32 [2, 4], as fc (Linear) takes it" in out
    assert err == ""
    assert names(models) == {"models.py", "net.py"}


def test_what_is_refused(models: Path, capsys):
    before = names(models)
    assert main(["models.py:Rare", "--analyze", "--name", "rare"]) == 1
    out = capsys.readouterr().out
    assert (
        "rare  models.Rare\nIt does not compile yet: some operators are refused." in out
    )
    assert "✗ aten.poisson.default in the model (Rare)" in out
    assert f"at {line('return torch.poisson(self.fc(x).abs())')}" in out
    assert names(models) == before


def test_what_cannot_be_captured(models: Path, capsys):
    assert main(["models.py:Branch", "--analyze"]) == 1
    out = capsys.readouterr().out
    assert "It does not compile: torch.export cannot capture it." in out
    assert "a branch depends on the values of a tensor" in out
    assert f"at {line('return y if y.sum() > 0 else -y')}" in out


def test_reports_are_written(models: Path, capsys):
    files = ["a.html", "a.md", "a.json", "a.txt"]
    reports = [part for file in files for part in ("--report", file)]
    assert main(["models.py:Rare", "--analyze", *reports, "--quiet"]) == 1
    assert "operator" not in capsys.readouterr().out
    assert set(files) <= names(models)
    assert (
        json.loads((models / "a.json").read_text())["status"] == "compiles with stubs"
    )


def test_json_alone_on_stdout(models: Path, capsys):
    assert main(["models.py:Rare", "--analyze", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "Rare" and found["refused"][0]["count"] == 1
    assert found["example_inputs"] == "x: float32 [2, 4], as fc (Linear) takes it"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("a.pdf", "a report's name ends in .md, .json, .html, .txt"),
        ("none/a.md", "no folder none to write to"),
    ],
)
def test_a_report_that_cannot_be_written(models: Path, capsys, file: str, why: str):
    assert main(["models.py:Fine", "--analyze", "--report", file]) == 2
    out, err = capsys.readouterr()
    assert (
        out == "" and err == f"torch2mlx-compile: error: cannot write {file}: {why}\n"
    )


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--report", "a.md"], "--report goes with --analyze"),
        (["--analyze", "-o", "out"], "--analyze writes no folder"),
        (["--analyze", "--dump", "emit"], "--analyze goes neither with --dump nor"),
        (["--analyze", "--explain"], "--analyze goes neither with --dump nor"),
    ],
)
def test_options_that_do_not_go_together(models: Path, capsys, argv, why: str):
    with pytest.raises(SystemExit) as caught:
        main(["models.py:Fine", *argv])
    assert caught.value.code == 2
    assert why in capsys.readouterr().err


def test_a_source_that_does_not_work(models: Path, capsys):
    assert main(["models.py:Fine", "--analyze", "--input", "2,5"]) == 2
    assert "--input: with x: float32 [2, 5] forward() fails" in capsys.readouterr().err
