"""The options about weights, and the way back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import torch2mlx
from tests.cli.conftest import FakeCompiler
from torch2mlx.cli import main


def test_options_reach_the_program(here: Path, compiler: FakeCompiler):
    argv = ["--quantize", "4", "--group-size", "32", "--dtype", "float16"]
    assert main(["net.py:Net", "--quiet", *argv]) == 0
    assert compiler.program.options == {
        "weights": None,
        "dtype": "float16",
        "quantize": 4,
        "group_size": 32,
        "mode": "affine",
    }


@pytest.fixture
def compiled(here: Path) -> Path:
    """The model with weights from a checkpoint, compiled for real."""
    sys.path.insert(0, str(here))
    import net

    torch.manual_seed(3)
    state = net.Net().state_dict()
    safetensors.torch.save_file(state, here / "w.safetensors")
    torch.save(state, here / "w.pth")
    sys.path.remove(str(here))
    assert main(["net.py:Net", "--weights", "w.pth", "-o", "out", "--quiet"]) == 0
    return here


def test_weights_and_the_way_back(compiled: Path, capsys):
    assert main(["--to-torch", "out"]) == 0
    assert capsys.readouterr().out == "4 tensors written to out_torch\n"
    found = safetensors.torch.load_file("out_torch/model.safetensors")
    wanted = torch.load("w.pth")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found)
    argv = ["--weights", "w.safetensors", "-o", "again", "--quiet", "--no-verify"]
    assert main(["net.py:Net", *argv]) == 0
    name = "model.safetensors"
    assert (compiled / "out" / name).read_bytes() == (
        compiled / "again" / name
    ).read_bytes()
    assert main(["--to-torch", "out", "-o", "one.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "status": "ok",
        "folder": "one.safetensors",
        "tensors": 4,
        "dropped": [],
    }


def test_what_is_refused(compiled: Path, capsys):
    assert main(["--to-torch", "nowhere", "--json"]) == 2
    captured = capsys.readouterr()
    assert "error: nowhere has no weights.json" in captured.err
    assert json.loads(captured.out)["source"] == "nowhere"
    assert main(["net.py:Net", "--quantize", "4", "--quiet", "--no-verify"]) == 2
    assert "no layer can be quantized: nn.Linear and" in capsys.readouterr().err
    assert main(["net.py:Net", "--weights", "none.pt"]) == 2
    assert "there is no file none.pt" in capsys.readouterr().err
    assert not (compiled / "Net_mlx").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits")
def test_a_full_disk_while_the_weights_are_written(compiled: Path, capsys):
    import resource

    before = {path: path.read_bytes() for path in (compiled / "out").iterdir()}
    listed = sorted(os.listdir())
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The source and its kin are smaller, the weights are not
    state = torch.nn.Linear(400, 400).state_dict()
    (compiled / "wide.py").write_text(
        "from torch import nn\n\n\ndef Net():\n    return nn.Linear(400, 400)\n"
    )
    safetensors.torch.save_file(state, "wide.safetensors")
    program = ["wide.py:Net", "--input", "1,400", "--weights", "wide.safetensors"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        assert main([*program, "-o", "out", "--quiet", "--no-verify"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    error = capsys.readouterr().err.strip()
    assert error.endswith("error: cannot write out/model.safetensors: File too large")
    assert "\n" not in error
    assert {p: p.read_bytes() for p in (compiled / "out").iterdir()} == before
    left = set(os.listdir()) - {*listed, "wide.py", "wide.safetensors"}
    assert left <= {"__pycache__"}


def test_dropped_keys_are_named(here: Path, capsys):
    net = torch.nn.Sequential(*(torch.nn.BatchNorm1d(3) for _ in range(4)))
    torch2mlx.compile(net, (torch.randn(2, 3),)).save("norms_mlx")
    assert main(["--to-torch", "norms_mlx", "--quiet"]) == 0
    assert main(["--to-torch", "norms_mlx"]) == 0
    assert capsys.readouterr().out == (
        "16 tensors written to norms_torch\n4 were dropped when it was compiled: "
        "0.num_batches_tracked, 1.num_batches_tracked, 2.num_batches_tracked, ...\n"
    )
