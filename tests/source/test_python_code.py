"""Models from Python code: what NAME may be, and one line for whatever is wrong with the code."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source import load


@pytest.mark.parametrize(
    ("spec", "name", "width"),
    [
        ("net.py:Net", "Net", 4),
        ("net.py:net", "net", 4),
        ("net.py:build", "build", 5),
        ("net.py:Net.wide", "wide", 9),
        ("./net.py:Net", "Net", 4),
        ("net:Net", "Net", 4),
        ("net:build", "build", 5),
        ("net:Net.wide", "wide", 9),
    ],
)
def test_what_a_name_may_be(here: Path, spec: str, name: str, width: int):
    path = list(sys.path)
    source = load(spec)
    assert isinstance(source.model, nn.Module)
    assert not source.model.training
    assert source.name == name
    assert [tuple(a.shape) for a in source.args] == [(2, width)]
    assert (source.kwargs, source.program) == ({}, None)
    assert source.description == f"x: float32 [2, {width}], as fc (Linear) takes it"
    assert (source.notes, source.files) == ((), {})
    assert sys.path == path


def test_absolute_path(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert load(f"{here}/net.py:Net").args[0].shape == (2, 4)
    assert load("../net.py:Net").args[0].shape == (2, 4)


def test_package(here: Path):
    (here / "models_of_mine").mkdir()
    (here / "models_of_mine" / "__init__.py").write_text("")
    (here / "net.py").rename(here / "models_of_mine" / "net.py")
    assert load("models_of_mine.net:Net").args[0].shape == (2, 4)


def test_installed_module():
    source = load("torch.nn:Identity", ["2,3"])
    assert type(source.model) is nn.Identity


def test_source_can_be_inspected(here: Path):
    model = load("net.py:Net").model
    assert "self.fc = nn.Linear(width, 2)" in inspect.getsource(type(model))


def test_file_named_like_an_imported_module(here: Path):
    import json

    (here / "net.py").rename(here / "json.py")
    assert load("json.py:Net").args[0].shape == (2, 4)
    assert sys.modules["json"] is json


NAMES = "Net, Sized, net, build, broken, stops, config"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("none.py:Net", "there is no file none.py"),
        ("net.py:Nett", "net.py has no 'Nett'; did you mean 'Net'?"),
        ("net.py:Model", f"net.py has no 'Model'; it has {NAMES}"),
        ("net:Nett", "net has no 'Nett'; did you mean 'Net'?"),
        ("net.py:Net.wade", "Net has no 'wade'; did you mean 'wide'?"),
        ("net.py:two words", "'two words' is not the name of a model"),
        ("net.py:", "'' is not the name of a model"),
        (".:Net", "give pkg.mod:NAME or path/file.py:NAME"),
        (
            "net.py:size",
            "size is of type int; it must be an nn.Module, a class of one, or a "
            "function that returns one",
        ),
        ("net.py:config", "config() returns dict, not an nn.Module"),
        (
            "net.py:broken",
            "broken() fails: net.py:34: ZeroDivisionError: division by zero",
        ),
        ("net.py:stops", "stops() fails: net.py:38: SystemExit: 4"),
        (
            "net.py:Sized",
            "Sized() is called without arguments, but missing a required argument: "
            "'width'; write a function without arguments that builds the model",
        ),
        (
            "no_such_module:Net",
            "there is no module 'no_such_module', installed or in the current folder",
        ),
        (
            "net.inner:Net",
            "there is no module 'net.inner', installed or in the current folder",
        ),
    ],
)
def test_bad_names(here: Path, spec: str, why: str):
    path = list(sys.path)
    with pytest.raises(InputError) as caught:
        load(spec)
    assert str(caught.value) == f"{spec}: {why}"
    assert sys.path == path


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1\ny = (\n", "bad.py:2: SyntaxError: '(' was never closed"),
        ("import torch\n  x = 1\n", "bad.py:2: IndentationError: unexpected indent"),
        (
            "\nimport no_such_module\n",
            "bad.py:2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "import helper_of_bad\n",
            "helper_of_bad.py:1: NameError: name 'x' is not defined",
        ),
        (
            "import torch\ntorch.zeros(2) @ torch.zeros(3)\n",
            "bad.py:2: RuntimeError: inconsistent tensor size, expected tensor [2] and "
            "src [3] to have the same number of elements, but got 2 and 3 elements "
            "respectively",
        ),
        ("import sys\n\nsys.exit()\n", "bad.py:3: SystemExit"),
        ("raise ValueError('one\\ntwo')\n", "bad.py:1: ValueError: one"),
    ],
)
@pytest.mark.parametrize("kind", ["bad.py:Net", "bad:Net"])
def test_broken_code(here: Path, kind: str, code: str, why: str):
    (here / "bad.py").write_text(code)
    (here / "helper_of_bad.py").write_text("x.y\n")
    with pytest.raises(InputError) as caught:
        load(kind)
    assert str(caught.value) == f"{kind}: {why}"
    assert "bad" not in sys.modules


def test_interrupts_pass(here: Path):
    (here / "bad.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("bad.py:Net")
    assert "bad" not in sys.modules


def test_what_the_code_prints_is_left_alone(here: Path, capsys):
    (here / "bad.py").write_text(
        "import warnings\nfrom torch import nn\nprint('hello')\nnet = nn.Linear(2, 3)\n"
        "warnings.warn('careful')\n"
    )
    with pytest.warns(UserWarning, match="careful"):
        load("bad.py:net")
    assert capsys.readouterr() == ("hello\n", "")
