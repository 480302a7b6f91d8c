"""Files: exported programs, and pickles that are refused unless trusted."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source import load

TRUST = "pass --trust-pickle if you trust where it comes from"


class Attack:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("attacked",)


@pytest.fixture
def program(here: Path) -> Path:
    model = nn.Linear(4, 2).eval()
    exported = torch.export.export(model, (torch.randn(3, 4),))
    torch.export.save(exported, here / "net.pt2")
    return here / "net.pt2"


def test_program_brings_its_inputs(program: Path):
    source = load("net.pt2")
    assert source.program is not None
    assert source.name == "net"
    assert [tuple(a.shape) for a in source.args] == [(3, 4)]
    assert source.description == "float32 [3, 4], as the program was exported with"
    expected = source.program.module()(*source.args)
    assert torch.equal(source.model(*source.args), expected)


def test_program_takes_no_other_inputs(program: Path):
    with pytest.raises(
        InputError, match=r"^net.pt2 brings its inputs along; leave out"
    ):
        load("net.pt2", ["3,4"])


def test_program_without_example_inputs(here: Path):
    exported = torch.export.export(nn.Linear(4, 2).eval(), (torch.randn(3, 4),))
    exported.example_inputs = None
    torch.export.save(exported, here / "net.pt2")
    with pytest.raises(InputError) as caught:
        load("net.pt2")
    assert str(caught.value) == (
        "net.pt2 holds no example inputs; export the model again and save it with "
        "torch.export.save"
    )


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_file_that_is_no_program(here: Path, content: bytes):
    (here / "net.pt2").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("net.pt2")
    assert str(caught.value) == "net.pt2 is not a file that torch.export.save wrote"


def test_archive_of_something_else(here: Path):
    torch.save({}, here / "net.pt2")
    with pytest.raises(
        InputError, match=r"^net\.pt2: torch.export cannot load it: "
    ) as caught:
        load("net.pt2")
    assert "\n" not in str(caught.value)


def test_program_with_a_pickle_inside(program: Path):
    """torch.export.load falls back on unpickling; the switch that forbids it is put back."""
    buffer = io.BytesIO()
    torch.save(Attack(), buffer)
    bad = program.with_name("bad.pt2")
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(bad, "w") as new:
        for item in old.namelist():
            is_example = "sample_inputs" in item
            new.writestr(item, buffer.getvalue() if is_example else old.read(item))
        assert any("sample_inputs" in item for item in old.namelist())
    with pytest.raises(InputError) as caught:
        load("bad.pt2")
    assert not Path("attacked").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert str(caught.value) == (
        f"bad.pt2 holds a pickle, and unpickling can run code; {TRUST}"
    )
    with suppress(InputError):
        load("bad.pt2", trust_pickle=True)
    assert Path("attacked").exists()


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "bin"])
def test_pickle_is_refused(here: Path, suffix: str):
    name = f"attack.{suffix}"
    torch.save(Attack(), here / name)
    with pytest.raises(InputError) as caught:
        load(name)
    assert (
        str(caught.value)
        == f"{name} holds a pickle, and unpickling can run code; {TRUST}"
    )
    assert not Path("attacked").exists()


def test_plain_pickle_is_refused(here: Path):
    (here / "attack.pkl").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError, match="unpickling can run code"):
        load("attack.pkl")
    assert not Path("attacked").exists()


def test_trusted_module(here: Path):
    torch.save(nn.Linear(4, 2), here / "net.pt")
    source = load("net.pt", trust_pickle=True)
    assert type(source.model) is nn.Linear
    assert not source.model.training
    assert source.name == "net"
    assert source.description == "input: float32 [2, 4], as the model (Linear) takes it"


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (nn.Linear(4, 2).state_dict(), "a dict of 2 tensors"),
        ({"model": nn.Linear(4, 2).state_dict(), "epoch": 3}, "a dict of 2 tensors"),
        ({"epoch": 3}, "a dict"),
        ([1, 2], "a list"),
        (torch.zeros(2), "a Tensor"),
    ],
)
def test_weights_are_no_model(here: Path, value: Any, what: str, trust: bool):
    torch.save(value, here / "net.pt")
    with pytest.raises(InputError) as caught:
        load("net.pt", trust_pickle=trust)
    assert str(caught.value) == (
        f"net.pt holds {what}, not an nn.Module; give a function that builds the "
        "model and loads it, as file.py:NAME"
    )


def test_damaged_pickle(here: Path):
    (here / "net.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"^net\.pt cannot be unpickled: ") as caught:
        load("net.pt", trust_pickle=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.pt2", "none.pt"])
def test_missing_file(here: Path, name: str):
    with pytest.raises(InputError, match=f"^there is no file {name}$"):
        load(name)
