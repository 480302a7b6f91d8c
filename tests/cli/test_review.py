"""The command on folders that are there: an edit, a recompile, a conflict, and what differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from torch2mlx.cli import main

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.fc(x))
        return self.head(x)


torch.manual_seed(0)
net = Net().eval()
"""
COMPILE = ["net.py:net", "--input", "2,8", "-o", "out"]
CALL = "        return self.head(nn.relu(self.fc(x)))\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # Bytecode of a file that changes within a second and keeps its size is taken for current
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "net.py").write_text(NET)
    yield tmp_path
    sys.modules.pop("net", None)


@pytest.fixture
def code(here: Path) -> Path:
    """The generated file of a compiled model."""
    assert main([*COMPILE, "--quiet"]) == 0
    return here / "out" / "model_mlx.py"


def rewrite(here: Path, old: str, new: str) -> None:
    """Change the PyTorch source."""
    text = (here / "net.py").read_text()
    assert old in text
    (here / "net.py").write_text(text.replace(old, new))


def edit(code: Path, old: str, new: str) -> None:
    text = code.read_text()
    assert old in text
    code.write_text(text.replace(old, new))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_check_of_what_is_up_to_date(here: Path, code: Path, capsys):
    before = contents(here / "out")
    assert main([*COMPILE, "--check"]) == 0
    assert capsys.readouterr() == ("out would stay as it is\n", "")
    assert contents(here / "out") == before


def test_check_says_what_would_change(here: Path, code: Path, capsys):
    before = contents(here / "out")
    rewrite(here, "torch.relu", "torch.tanh")
    assert main([*COMPILE, "--check"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[:2] == [
        "--- out/model_mlx.py",
        "+++ out/model_mlx.py (recompiled)",
    ]
    assert f"-{CALL.rstrip()}" in lines
    assert f"+{CALL.rstrip().replace('nn.relu', 'mx.tanh')}" in lines
    assert contents(here / "out") == before


def test_check_of_a_folder_that_is_not_there(here: Path, capsys):
    assert main([*COMPILE, "--check"]) == 1
    assert "+class Net(nn.Module):" in capsys.readouterr().out
    assert not (here / "out").exists()


def test_check_leaves_edits_alone(here: Path, code: Path, capsys):
    edit(code, CALL, f"        # mine\n{CALL}")
    assert main([*COMPILE, "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "status": "unchanged",
        "folder": "out",
        "diff": "",
        "conflicts": {},
    }


def test_an_edit_a_recompile_a_conflict(here: Path, code: Path, capsys):
    edit(code, CALL, f"        # mine\n{CALL}")
    rewrite(here, "nn.Linear(8, 8)", "nn.Linear(8, 8, bias=False)")
    assert main(COMPILE) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "the edits in model_mlx.py are kept" in out
    assert "# mine\n" in code.read_text()
    assert "bias=False" in code.read_text()

    edit(code, CALL, CALL.replace("nn.relu", "nn.silu"))
    rewrite(here, "torch.relu", "torch.tanh")
    assert main(COMPILE) == 1
    _, err = capsys.readouterr()
    assert err == (
        "torch2mlx-compile: error: 1 conflict between your edits and the newly generated "
        "code: look for <<<<<<< in out/model_mlx.py\n"
    )
    assert (
        "<<<<<<< your edits\n"
        "        # mine\n"
        "        return self.head(nn.silu(self.fc(x)))\n"
        "||||||| generated before\n"
        "        return self.head(nn.relu(self.fc(x)))\n"
        "=======\n"
        "        return self.head(mx.tanh(self.fc(x)))\n"
        ">>>>>>> generated now\n"
    ) in code.read_text()

    before = contents(here / "out")
    assert main(COMPILE) == 2
    _, err = capsys.readouterr()
    assert err == (
        "torch2mlx-compile: error: out/model_mlx.py has unresolved conflicts: look for "
        "<<<<<<< in it\n"
    )
    assert contents(here / "out") == before


def test_edits_are_compared_with_pytorch_before_they_are_kept(
    here: Path, code: Path, capsys
):
    edit(code, "nn.relu", "nn.silu")
    assert main(COMPILE) == 1
    _, err = capsys.readouterr()
    assert "verification failed" in err
    assert "(edited since it was generated): return self.head(nn.silu" in err
    assert "nn.silu" in code.read_text()


def test_verify_a_folder(here: Path, code: Path, capsys):
    source = ["net.py:net", "--input", "2,8", "--verify", "out"]
    before = contents(here / "out")
    assert main(source) == 0
    assert "example inputs: 1 output agrees" in capsys.readouterr().out
    edit(code, "nn.relu", "nn.silu")
    assert main([*source, "--repro", "repro.py"]) == 1
    out = capsys.readouterr().out
    assert "culprit: the model itself (Net" in out
    assert "net.py:12: x = torch.relu(self.fc(x))" in out
    assert contents(here / "out").keys() == before.keys()
    script = (here / "repro.py").read_text()
    assert "torch2mlx.verify_folder(" in script
    done = subprocess.run(
        [sys.executable, "repro.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "differs by" in done.stdout


def test_verify_other_weights(here: Path, code: Path, capsys):
    rewrite(here, "manual_seed(0)", "manual_seed(1)")
    assert main(["net.py:net", "--input", "2,8", "--verify", "out", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "mismatch"
    culprit = found["verification"]["culprit"]
    assert culprit["path"] == "fc"
    assert culprit["cause"] == "state"


def test_verify_a_folder_that_is_none(here: Path, capsys):
    assert main(["net.py:net", "--input", "2,8", "--verify", "nowhere"]) == 2
    assert "cannot read nowhere/model_mlx.py" in capsys.readouterr().err


def test_diff(here: Path, code: Path, capsys):
    assert main([*COMPILE[:-1], "other", "--quiet"]) == 0
    assert main(["--diff", "out", "other"]) == 0
    lines = len(code.read_text().splitlines())
    assert capsys.readouterr().out == (
        "code: the same\n"
        "weights: 4 arrays, all the same\n"
        f"lines of code: {lines}\n"
        "numbers in the weights: 90\n"
        "bytes of the weights: 360\n"
        "outputs: output: the same\n"
    )
    rewrite(here, "torch.relu", "torch.tanh")
    rewrite(here, "net = Net", "torch.randn(1)\nnet = Net")
    rewrite(here, "nn.Linear(8, 8)", "nn.Linear(8, 8, bias=False)")
    assert main([*COMPILE[:-1], "other", "--quiet"]) == 0
    assert main(["--diff", "out", "other"]) == 1
    out = capsys.readouterr().out
    assert "--- out/model_mlx.py\n+++ other/model_mlx.py\n" in out
    assert "+        return self.head(mx.tanh(self.fc(x)))\n" in out
    assert "weights: 4 of 4 arrays differ\n" in out
    assert "    fc.bias: removed: F32 [8]\n" in out
    assert "    fc.weight: values differ by " in out
    assert "numbers in the weights: 90 -> 82\n" in out
    assert "outputs: output: differs by " in out


def test_diff_of_precisions(here: Path, code: Path, capsys):
    assert main([*COMPILE[:-1], "half", "--dtype", "bfloat16", "--quiet"]) == 0
    assert main(["--diff", "out", "half", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "different"
    assert found["sizes"]["bytes of the weights"] == [360, 180]
    assert {a["key"] for a in found["arrays"]} == {
        "fc.weight",
        "fc.bias",
        "head.weight",
        "head.bias",
    }
    assert all(a["what"].startswith("F32 -> BF16, ") for a in found["arrays"])
    assert all(0 < a["max_difference"] < 2e-3 for a in found["arrays"])
    assert [output["key"] for output in found["outputs"]] == ["output"]


def test_diff_of_what_is_no_folder(here: Path, code: Path, capsys):
    assert main(["--diff", "out", "nowhere"]) == 2
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: nowhere is no generated folder: it has no model_mlx.py\n"
    )


def test_certificate(here: Path, capsys):
    assert main([*COMPILE, "--certificate", "--quiet"]) == 0
    run = [sys.executable, "out/model_mlx.py", "--selftest"]
    # What the Mac has: neither torch nor this package
    (here / "blocked").mkdir()
    for name in ("torch", "torch2mlx", "numpy"):
        (here / "blocked" / f"{name}.py").write_text("raise ImportError('blocked')\n")
    env = {"PYTHONPATH": str(here / "blocked"), "PATH": "/usr/bin"}
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("output: agrees with PyTorch, by ")
    edit(here / "out" / "model_mlx.py", "nn.relu", "nn.silu")
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("output: DIFFERS from PyTorch, by ")
    done = subprocess.run(run[:-1], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: python out/model_mlx.py --selftest\n"
    # Without the option it goes, together with the file
    edit(here / "out" / "model_mlx.py", "nn.silu", "nn.relu")
    assert main([*COMPILE, "--quiet"]) == 0
    assert not (here / "out" / "certificate.safetensors").exists()
    assert "selftest" not in (here / "out" / "model_mlx.py").read_text()


def test_no_certificate_for_edits_that_are_wrong(here: Path, code: Path, capsys):
    edit(code, "nn.relu", "nn.silu")
    assert main([*COMPILE, "--certificate"]) == 1
    assert "verification failed" in capsys.readouterr().err
    assert not (here / "out" / "certificate.safetensors").exists()


def test_no_certificate_for_quantized_weights(here: Path, capsys):
    (here / "net.py").write_text(
        NET.replace("(8, 8)", "(64, 64)").replace("(8, 2", "(64, 2")
    )
    argv = ["net.py:net", "--input", "2,64", "-o", "out", "--quiet"]
    assert main([*argv, "--certificate", "--quantize", "4"]) == 2
    assert "no certificate: quantized weights" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_comments_and_a_source_map(here: Path, capsys):
    assert main([*COMPILE, "--annotate", "--source-map", "--quiet"]) == 0
    text = (here / "out" / "model_mlx.py").read_text()
    lines = text.splitlines()
    assert "        return self.head(nn.relu(self.fc(x)))  # net.py:12, 13" in lines
    assert lines[lines.index("class Net(nn.Module):") - 1] == "# net.py:5"
    found = json.loads((here / "out" / "model_mlx.map.json").read_text())
    assert found["file"] == "model_mlx.py"
    number = (
        lines.index("        return self.head(nn.relu(self.fc(x)))  # net.py:12, 13")
        + 1
    )
    assert found["statements"][-1] == {
        "lines": [number, number],
        "class": "Net",
        "source": ["net.py:13", "net.py:12"],
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--diff", "a", "b", "net.py:net"], "give either SOURCE or"),
        (["--check"], "give either SOURCE or"),
        (["--to-torch", "a", "--check"], "--check and --verify go with SOURCE"),
        (["net.py:net", "--check", "--dump", "emit"], "exclude one another"),
        (["net.py:net", "--verify", "out", "-o", "x"], "leave out --output"),
        (["net.py:net", "--repro", "x.txt"], "must end in .py"),
    ],
)
def test_options_that_do_not_go_together(here: Path, capsys, argv, message):
    with pytest.raises(SystemExit) as status:
        main(argv)
    assert status.value.code == 2
    assert message in capsys.readouterr().err
