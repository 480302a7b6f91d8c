"""The command with the real compiler: the folder works, and refusals name the author's line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch2mlx.cli import main

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        return torch.geqrf(x)[0] + torch.poisson(x.abs())


torch.manual_seed(0)
net = Net().eval()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    yield tmp_path
    sys.modules.pop("net", None)


def generated(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("model_mlx", folder / "model_mlx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_model()


def test_the_folder_works(here: Path, capsys):
    assert main(["net.py:net", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "verified" in out
    assert "\x1b[" not in out
    model = sys.modules["net"].net
    x = torch.randn(3, 3, 20, 16)
    with torch.no_grad():
        expected = model(x).numpy()
    result = generated(here / "out")(mx.array(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(np.array(result), expected, atol=1e-6)


def test_layout_of_images(here: Path):
    assert main(["net.py:net", "-o", "out", "--io-layout", "torch", "--quiet"]) == 0
    x = torch.randn(3, 3, 20, 16)
    result = generated(here / "out")(mx.array(x.numpy()))
    with torch.no_grad():
        expected = sys.modules["net"].net(x).numpy()
    np.testing.assert_allclose(np.array(result), expected, atol=1e-6)


def test_dump_is_what_is_written(here: Path, capsys):
    assert main(["net.py:net", "--dump", "emit", "-o", "out"]) == 0
    assert capsys.readouterr().out == (here / "out" / "model_mlx.py").read_text()


@pytest.mark.parametrize("stage", ["capture", "passes", "lower", "layout", "outline"])
def test_every_stage_can_be_dumped(here: Path, capsys, stage: str):
    assert main(["net.py:net", "--dump", stage]) == 0
    assert "conv" in capsys.readouterr().out


def test_json(here: Path, capsys):
    assert main(["net.py:net", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["status"] == "ok"
    assert value["verification"]["ok"] is True
    assert value["trainable"] == 3 * 8 * 9 + 8 + 8 * 2 + 2
    assert value["layers"] == {"Conv2d": 1, "Linear": 1}
    assert sorted(p.name for p in Path(value["folder"]).iterdir()) == value["files"]


def test_explain(here: Path, capsys):
    assert main(["net.py:net", "--explain"]) == 0
    assert capsys.readouterr().err == ""
    assert not (here / "net_mlx").exists()


def test_unsupported_operators(here: Path, capsys):
    assert main(["net.py:Odd"]) == 2
    line = f"{here}/net.py:22: return torch.geqrf(x)[0] + torch.poisson(x.abs())"
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: 2 unsupported operator calls:\n"
        "  aten.geqrf.default in the model (Odd)\n"
        f"    at {line}\n"
        "    no entry in the op table: map it with torch2mlx.register_op, or compile with stubs\n"
        "  aten.poisson.default in the model (Odd)\n"
        f"    at {line}\n"
        "    no entry in the op table: map it with torch2mlx.register_op, or compile with stubs\n"
    )
    assert not (here / "Odd_mlx").exists()


def test_inputs_that_do_not_fit(here: Path, capsys):
    assert main(["net.py:Net", "--input", "2,4,20,20"]) == 2
    assert capsys.readouterr() == (
        "",
        "torch2mlx-compile: error: --input: with x: float32 [2, 4, 20, 20] forward() "
        "fails: net.py:12: RuntimeError: Given groups=1, weight of size [8, 3, 3, 3], "
        "expected input[2, 4, 20, 20] to have 3 channels, but got 4 channels instead\n",
    )


def test_unknown_pass(here: Path, capsys):
    assert main(["net.py:net", "--disable-pass", "no_such_pass"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "torch2mlx-compile: error: there is no pass 'no_such_pass'; the passes are regions, inline, "
    )


def test_console_script(here: Path):
    script = Path(sys.executable).with_name("torch2mlx-compile")
    done = subprocess.run(
        [script, "net:net", "-o", "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "example inputs: x: float32 [2, 3, 64, 64], as conv (Conv2d) takes it\n"
    )
    assert (here / "out" / "model.safetensors").is_file()
