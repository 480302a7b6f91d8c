"""The example that trains a generated model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "custom_model" / "train.py"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    """Imports and `sys.path` as they were before, afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in {"model", "model_mlx"} - before:
        sys.modules.pop(name, None)


def test_the_loss_falls(tmp_path: Path, monkeypatch, capsys, modules) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in lines if line.startswith("step")]
    assert len(losses) == 7
    assert losses[-1] < losses[0] / 2
    assert (tmp_path / "out" / "model_mlx.py").is_file()
