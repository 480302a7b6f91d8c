"""The demo: it agrees with PyTorch, and says so where it does not."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "minilm" / "demo.py"


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for package in ("torch", "transformers", "torch2mlx"):
        assert f"import {package}: ImportError" in done.stdout
    assert done.stdout.count(", agrees") == 2
    assert "class BertLayer(nn.Module):" in done.stdout


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch):
    """The functions of the demo; what it hides from transformers is visible again afterwards."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    return runpy.run_path(str(DEMO))


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_a_difference_fails_the_demo(demo, capsys, wrong: float) -> None:
    expected = np.eye(5, dtype=np.float32)
    assert demo["compare"](expected, expected, expected) == 0
    other = expected.copy()
    other[3, 4] += wrong
    assert demo["compare"](expected, expected, other) == 1
    assert demo["compare"](expected, other, expected) == 1
    assert "DIFFERS" in capsys.readouterr().out
