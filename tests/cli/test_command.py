"""What the command does and prints, with a stand-in for the compiler."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch2mlx.cli import main
from torch2mlx.errors import CaptureError, Unsupported, UnsupportedError

INPUTS = "example inputs: x: float32 [2, 3, 64, 64], as conv (Conv2d) takes it\n"
SUMMARY = """\
model       Net: 242 trainable parameters, 1.0 kB
inputs      x: float32 [B, H, W, 3]
outputs     float32 [B, 2]
layers      Conv2d, Linear
operators   add 3, relu
transposes  none
notes       the batch size is fixed at 2
verified    largest error 1e-07
files       {folder}/: config.json, model.safetensors, model_mlx.py

Next, in that folder:
    from model_mlx import load_model
    model = load_model()
"""


def plain(text: str) -> str:
    """Tables pad their lines."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "__pycache__")


def test_writes_the_folder_and_a_summary(here: Path, compiler, capsys):
    assert main(["net.py:Net", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert plain(out) == INPUTS + SUMMARY.format(folder="out")
    assert err == ""
    assert listing(here / "out") == ["config.json", "model.safetensors", "model_mlx.py"]


@pytest.mark.parametrize(
    ("argv", "folder"),
    [([], "Net_mlx"), (["--name", "my net/2"], "my_net_2_mlx")],
)
def test_default_folder(here: Path, compiler, capsys, argv: list[str], folder: str):
    assert main(["net.py:Net", *argv]) == 0
    assert listing(here) == [folder, "net.py"]
    assert f"{folder}/: config.json" in capsys.readouterr().out


def test_options_reach_the_compiler(here: Path, compiler):
    argv = ["--input", "x=4,3,9,9", "--static", "--io-layout", "torch", "--name", "A"]
    passes = ["--disable-pass", "fold", "--disable-pass", "fuse"]
    assert main(["net.py:Net", "--quiet", *argv, *passes]) == 0
    (_, args, kwargs), options = compiler.calls[0]
    assert args == ()
    assert kwargs["x"].shape == (4, 3, 9, 9)
    options.pop("progress")
    assert options == {
        "dynamic": False,
        "io_layout": "torch",
        "name": "A",
        "disable": ["fold", "fuse"],
        "program": None,
    }


def test_defaults_of_the_compiler(here: Path, compiler):
    assert main(["net.py:Net", "--quiet"]) == 0
    options = compiler.calls[0][1]
    options.pop("progress")
    assert options == {"name": "Net", "program": None}


def test_exported_program_reaches_the_compiler(here: Path, compiler):
    exported = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.ones(2, 4),))
    torch.export.save(exported, here / "net.pt2")
    assert main(["net.pt2", "--quiet"]) == 0
    assert isinstance(compiler.calls[0][1]["program"], torch.export.ExportedProgram)
    assert listing(here) == ["net.pt2", "net.py", "net_mlx"]


def test_companion_files_are_copied(here: Path, compiler, monkeypatch):
    from dataclasses import replace

    from torch2mlx import source

    (here / "vocab.txt").write_bytes(b"words\r\n")
    real = source.load

    def load(*args, **options):
        return replace(real(*args, **options), files={"vocab.txt": here / "vocab.txt"})

    monkeypatch.setattr(source, "load", load)
    assert main(["net.py:Net", "-o", "out", "--quiet"]) == 0
    assert (here / "out" / "vocab.txt").read_bytes() == b"words\r\n"


def test_quiet(here: Path, compiler, capsys):
    assert main(["net.py:Net", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_no_verify(here: Path, compiler, capsys):
    compiler.program.ok = False
    assert main(["net.py:Net", "--no-verify"]) == 0
    assert "verified    not compared\n" in plain(capsys.readouterr().out)


@pytest.mark.parametrize("argv", [[], ["--quiet"], ["--dump", "emit", "-o", "Net_mlx"]])
def test_mismatch(here: Path, compiler, capsys, argv: list[str]):
    compiler.program.ok = False
    assert main(["net.py:Net", *argv]) == 1
    err = capsys.readouterr().err
    assert err.endswith(
        "torch2mlx-compile: error: verification failed\n"
        "output 0: largest error 0.5\n"
        "first differs in conv (Conv2d)\n"
    )
    assert listing(here) == ["Net_mlx", "net.py"]


def test_json(here: Path, compiler, explained, capsys):
    assert main(["net.py:loud", "--json", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert err == "loud\n"
    value = json.loads(out)
    assert value["status"] == "ok"
    assert value["source"] == "net.py:loud"
    assert value["folder"] == "out"
    assert value["files"] == ["config.json", "model.safetensors", "model_mlx.py"]
    assert value["example_inputs"].startswith("x: float32 [2, 3, 64, 64], as conv")
    assert value["ops"]["aten.relu.default"] == 1
    assert value["layers"] == {"Conv2d": 1, "Linear": 1}
    assert value["notes"] == ["the batch size is fixed at 2"]
    assert value["verification"] == {"ok": True}
    assert value["transposes"][0]["bytes"] == 2048
    assert value["decisions"][0]["kind"] == "fused"


def test_json_of_a_mismatch(here: Path, compiler, capsys):
    compiler.program.ok = False
    assert main(["net.py:Net", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["status"], value["verification"]) == ("mismatch", {"ok": False})


def test_json_of_a_refusal(here: Path, compiler, capsys):
    entry = Unsupported("aten.eig.default", "Odd", "net.py:17: eig", 2, "write it out")
    compiler.error = UnsupportedError([entry])
    assert main(["net.py:Net", "--json"]) == 2
    value = json.loads(capsys.readouterr().out)
    assert (value["status"], value["error"]) == ("refused", "UnsupportedError")
    assert value["unsupported"][0]["source_line"] == "net.py:17: eig"
    assert listing(here) == ["net.py"]


def test_dump(here: Path, compiler, capsys):
    assert main(["net.py:loud", "--dump", "emit"]) == 0
    out, err = capsys.readouterr()
    assert out == "stage emit [1]\n"
    assert err == "loud\n" + INPUTS
    assert listing(here) == ["net.py"]


def test_dump_and_write(here: Path, compiler, capsys):
    assert main(["net.py:Net", "--dump", "lower", "-o", "out"]) == 0
    assert capsys.readouterr().out == "stage lower [1]\n"
    assert listing(here) == ["net.py", "out"]


EXPLAINED = """\
fused
  conv: conv and relu are one
      at net.py:12: x.relu()
  fc: folded
declined
  attention: the mask depends on data
transposes
"""


def test_explain(here: Path, compiler, explained, capsys):
    assert main(["net.py:Net", "--explain"]) == 0
    out = capsys.readouterr().out
    transposes = "".join(
        f"  fc, 2.0 kB: reshape {i} mixes channels\n      at net.py:{i}: x\n"
        for i in range(5)
    )
    assert out == INPUTS + EXPLAINED + transposes
    assert listing(here) == ["net.py"]


def test_explain_nothing(here: Path, compiler, capsys):
    assert main(["net.py:Net", "--explain"]) == 0
    assert capsys.readouterr().out == (
        f"{INPUTS}Nothing was decided: every operator has one translation.\n"
    )


def test_summary_counts_transposes(here: Path, compiler, explained, capsys):
    assert main(["net.py:Net", "--explain", "-o", "out"]) == 0
    text = plain(capsys.readouterr().out)
    assert text.startswith(INPUTS + EXPLAINED)
    assert (
        "transposes  5 of 10.2 kB in all\n"
        "            fc: reshape 0 mixes channels\n"
        "            fc: reshape 1 mixes channels\n"
        "            fc: reshape 2 mixes channels\n"
        "            and 2 more, which --explain lists\n"
    ) in text


def test_unused_weights_are_named(here: Path, compiler, capsys):
    compiler.program.report.unused = ["a", "b", "c", "d", "e"]
    assert main(["net.py:Net"]) == 0
    assert "unused      a, b, c and 2 more\n" in plain(capsys.readouterr().out)


def test_lines_stay_whole_in_a_pipe(here: Path, compiler, monkeypatch, capsys):
    note = f"`x.shape[1]` is fixed at 3: {here}/{'deep/' * 40}net.py:7: x.view(3, -1)"
    compiler.program.report.notes = [note]
    assert main(["net.py:Net"]) == 0
    assert f"notes       {note}\n" in plain(capsys.readouterr().out)
    stdout = terminal(monkeypatch, "stdout")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["net.py:Net"]) == 0
    assert max(map(len, stdout.getvalue().splitlines())) <= 80


def test_only_the_frequent_operators_are_listed(here: Path, compiler, capsys):
    ops = compiler.program.report.ops
    ops.clear()
    ops.update({f"aten.op{i}.default": 20 - i for i in range(10)})
    assert main(["net.py:Net"]) == 0
    listed = ", ".join(f"op{i} {20 - i}" for i in range(8))
    assert f"operators   {listed}, 2 more\n" in plain(capsys.readouterr().out)


def test_unsupported(here: Path, compiler, capsys):
    entry = Unsupported("aten.eig.default", "Odd", "net.py:17: eig", 2, "write it out")
    compiler.error = UnsupportedError([entry])
    assert main(["net.py:Net"]) == 2
    out, err = capsys.readouterr()
    assert out == INPUTS
    assert err == (
        "torch2mlx-compile: error: 2 unsupported operator calls:\n"
        "  aten.eig.default (2 times) in Odd\n"
        "    at net.py:17: eig\n"
        "    write it out\n"
    )
    assert listing(here) == ["net.py"]


def test_capture_error(here: Path, compiler, capsys):
    compiler.error = CaptureError("torch.export cannot capture the model: why")
    assert main(["net.py:Net"]) == 2
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: torch.export cannot capture the model: why\n"
    )


REFUSED = [
    (["net.py:Netz"], "net.py:Netz: net.py has no 'Netz'; did you mean 'Net'?"),
    (["gone.py:Net"], "gone.py:Net: there is no file gone.py"),
    (
        ["net.py:broken"],
        "net.py:broken: broken() fails: net.py:26: ZeroDivisionError: division by zero",
    ),
    (["bad.py:Net"], "bad.py:Net: bad.py:2: SyntaxError: '(' was never closed"),
    (
        ["hf:gone"],
        "hf:gone: there is no folder gone; hf: takes a local folder with a config.json, "
        "nothing is downloaded",
    ),
    (
        ["net.py:Net", "--input", "2x3"],
        "--input '2x3': '2x3' is not a size; give 2,3,224,224 or int64[2,16] or "
        "input_ids=int64[2,16] or inputs.npz",
    ),
    (
        ["net.py:Net", "--input", "y=2,3"],
        "--input: missing a required argument: 'x'; forward() of Net takes x",
    ),
    (
        ["net.pt"],
        "net.pt holds a pickle, and unpickling can run code; pass --trust-pickle if you "
        "trust where it comes from",
    ),
    (
        ["net.py:Net", "--task", "fill-mask"],
        "a task goes with hf:DIR alone, not with net.py:Net",
    ),
]


@pytest.mark.parametrize(("argv", "why"), REFUSED)
def test_refused(here: Path, compiler, capsys, argv: list[str], why: str):
    (here / "bad.py").write_text("x = 1\ny = (\n")
    torch.save(torch.nn.Linear(2, 2), here / "net.pt")
    before = listing(here)
    assert main(argv) == 2
    assert capsys.readouterr() == ("", f"torch2mlx-compile: error: {why}\n")
    assert listing(here) == before
    assert compiler.calls == []


def test_unknown_torchvision_name(here: Path, compiler, capsys, torchvision_models):
    assert main(["torchvision:resnet81"]) == 2
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: torchvision has no model 'resnet81'; did you mean "
        "torchvision:resnet18 or torchvision:resnet152 or torchvision:resnet101?\n"
    )


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("net.py", "cannot write the folder net.py: a file is in its place"),
        ("net.py/out", "cannot write net.py/out: {here}/net.py is not a folder"),
        (
            ".",
            "cannot write .: the current folder cannot be replaced, name a folder inside it",
        ),
    ],
)
def test_unwritable_folder(here: Path, compiler, capsys, output: str, why: str):
    # The model itself is not even looked at
    assert main(["gone.py:Net", "-o", output]) == 2
    text = why.format(here=here)
    assert capsys.readouterr() == ("", f"torch2mlx-compile: error: {text}\n")
    assert listing(here) == ["net.py"]


def test_unwritable_default_folder(here: Path, compiler, capsys):
    (here / "Net_mlx").write_text("mine")
    assert main(["net.py:Net"]) == 2
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: cannot write the folder Net_mlx: a file is in its place\n"
    )
    assert compiler.calls == []
    assert (here / "Net_mlx").read_text() == "mine"


def test_no_permission(here: Path, compiler, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["net.py:Net", "-o", "out"]) == 2
    assert capsys.readouterr().err == (
        "torch2mlx-compile: error: cannot write out: Permission denied\n"
    )


@pytest.mark.parametrize("when", ["compiling", "writing"])
def test_interrupted(here: Path, compiler, capsys, when: str):
    owner = compiler if when == "compiling" else compiler.program
    owner.error = KeyboardInterrupt()
    (here / "out").mkdir()
    (here / "out" / "model_mlx.py").write_text("old")
    assert main(["net.py:Net", "-o", "out"]) == 130
    assert capsys.readouterr().err == "torch2mlx-compile: interrupted\n"
    assert listing(here) == ["net.py", "out"]
    assert listing(here / "out") == ["model_mlx.py"]
    assert (here / "out" / "model_mlx.py").read_text() == "old"


@pytest.mark.parametrize("when", ["compiling", "writing"])
def test_internal_error(here: Path, compiler, capsys, when: str):
    owner = compiler if when == "compiling" else compiler.program
    owner.error = ZeroDivisionError("a fault")
    assert main(["net.py:Net", "-o", "out"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith(
        "torch2mlx-compile: internal error: ZeroDivisionError: a fault\n"
        "This is a bug in torch2mlx: please report it with the lines above.\n"
    )
    assert listing(here) == ["net.py"]


def test_reader_that_has_seen_enough(here: Path, compiler, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["net.py:Net", "--dump", "emit"]) == 0
        monkeypatch.undo()


@pytest.mark.parametrize("package", ["torch", "rich"])
def test_missing_extra(here: Path, package: str):
    code = (
        f"import sys\nsys.modules['{package}'] = None\n"
        "from torch2mlx.cli import main\nsys.exit(main(['net.py:Net']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"torch2mlx-compile: error: {package} is not installed: "
        "pip install 'torch2mlx[compile]'\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, stream: str) -> Terminal:
    """Make a stream a terminal, from inside the test: pytest sets the streams before it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Terminal()
    monkeypatch.setattr(sys, stream, file)
    return file


def test_progress_on_a_terminal(here: Path, compiler, monkeypatch, capsys):
    stderr = terminal(monkeypatch, "stderr")
    assert main(["net.py:loud"]) == 0
    shown = stderr.getvalue()
    assert "capturing the graph" in shown
    assert "writing weights" in shown
    assert "1.0/1.0 kB" in shown
    assert "\x1b[" in shown
    # stdout is a pipe all the same
    out = plain(capsys.readouterr().out)
    assert out == "loud\n" + INPUTS + SUMMARY.format(folder="loud_mlx")


def test_quiet_on_a_terminal(here: Path, compiler, monkeypatch):
    stderr = terminal(monkeypatch, "stderr")
    assert main(["net.py:Net", "--quiet"]) == 0
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("no_color", [True, False])
def test_no_color(here: Path, compiler, monkeypatch, no_color: bool):
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stdout = terminal(monkeypatch, "stdout")
    assert main(["net.py:Net"]) == 0
    assert ("\x1b[" in stdout.getvalue()) is not no_color
