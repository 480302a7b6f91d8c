"""Which loader a spec goes to, given inputs, and what is said where no loader takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torch2mlx.errors import InputError
from torch2mlx.source import load
from torch2mlx.source.load import KINDS

TEXT = """\
from torch import nn
class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.fc = nn.Embedding(11, 4), nn.Linear(4, 2)
    def forward(self, tokens, mask=None):
        x = self.fc(self.words(tokens))
        return x if mask is None else x * mask[..., None]
"""


@pytest.fixture
def text(here: Path) -> str:
    (here / "text.py").write_text(TEXT)
    return "text.py:Text"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("resnet18", f"'resnet18' is no source; a source is {KINDS}"),
        ("", f"'' is no source; a source is {KINDS}"),
        ("net.py", "net.py: say which model of the file, as in net.py:NAME"),
        ("torchvision:", "torchvision:: what comes after the colon is missing"),
        (
            "torchvison:resnet18",
            "torchvison:resnet18: there is no module 'torchvison', installed or in the "
            "current folder; did you mean torchvision:resnet18?",
        ),
        (
            "model.safetensors",
            "model.safetensors is no source: a .safetensors file does not hold the "
            f"model's code; a source is {KINDS}",
        ),
        ("folder", "folder is a folder; did you mean hf:folder?"),
    ],
)
def test_no_source(here: Path, spec: str, why: str):
    (here / "folder").mkdir()
    (here / "folder" / "config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        load(spec)
    assert str(caught.value) == why


def test_task_needs_transformers(here: Path):
    with pytest.raises(InputError) as caught:
        load("net.py:Net", task="fill-mask")
    assert str(caught.value) == "a task goes with hf:DIR alone, not with net.py:Net"


def test_given_inputs(text: str):
    source = load(text, ["int64[3,5]", "mask=3,5"])
    (tokens,) = source.args
    assert (tokens.shape, tokens.dtype) == ((3, 5), torch.int64)
    assert source.kwargs["mask"].shape == (3, 5)
    assert source.description == (
        "tokens: int64 [3, 5]; mask: float32 [3, 5], as given"
    )


def test_given_integers_stay_in_the_table(text: str):
    (tokens,) = load(text, ["int64[100,10]"]).args
    assert (int(tokens.min()), int(tokens.max())) == (0, 10)


def test_values_of_a_file(text: str, here: Path):
    np.savez(here / "in.npz", tokens=np.array([[1, 2]]), mask=np.ones((1, 2)))
    source = load(text, ["in.npz"])
    assert source.args == ()
    assert source.kwargs["tokens"].tolist() == [[1, 2]]


def test_bad_input_is_told_before_the_model_is_loaded(here: Path):
    with pytest.raises(InputError, match="'2x3' is not a size"):
        load("none.py:Net", ["2x3"])


def test_inputs_that_do_not_fit(text: str):
    with pytest.raises(InputError) as caught:
        load(text, ["x=2,3"])
    assert str(caught.value) == (
        "--input: missing a required argument: 'tokens'; forward() of Text takes "
        "tokens, mask"
    )


def test_given_inputs_that_the_model_refuses(here: Path):
    with pytest.raises(InputError) as caught:
        load("net.py:Net", ["2,5"])
    assert str(caught.value) == (
        "--input: with x: float32 [2, 5] forward() fails: net.py:13: RuntimeError: a and "
        "b must have same reduction dim, but got [2, 5] X [4, 2]."
    )


@pytest.mark.parametrize("code", ["x[x > 0]", "x * x.sum().item()", "x.nonzero()"])
def test_given_inputs_whose_values_matter(here: Path, code: str):
    (here / "picky.py").write_text(
        "from torch import nn\nclass Picky(nn.Module):\n    def forward(self, x):\n"
        f"        return {code}\n"
    )
    assert load("picky.py:Picky", ["3,2"]).args[0].shape == (3, 2)


@pytest.mark.parametrize("inputs", [[], ["3,4"]])
def test_model_without_values(here: Path, inputs: list[str]):
    (here / "large.py").write_text(
        "import torch\nfrom net import Net\ndef large():\n"
        "    with torch.device('meta'):\n        return Net()\n"
    )
    source = load("large.py:large", inputs)
    assert source.args[0].device.type == "meta"
    assert source.args[0].shape == ((3, 4) if inputs else (2, 4))
