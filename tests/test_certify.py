"""Certificates: what is recorded, for which models, and that a wrong port gets none."""

from __future__ import annotations

import runpy
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from torch import nn

import torch2mlx
from tests.verify.models import MLP, ConvNet, bert, build
from torch2mlx.api import Program
from torch2mlx.errors import InputError
from torch2mlx.writing import Extras

CERTIFIED = Extras(certificate=True)


class Nested(nn.Module):
    def forward(self, pair, scale):
        x, mask = pair
        return {"sum": (x * scale["a"], x.sum()), "mask": ~mask, "none": None}


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x):
        self.total += x.sum(0)
        return x + self.total


class Noisy(nn.Module):
    def __init__(self, alone: bool):
        super().__init__()
        self.alone = alone

    def forward(self, x):
        noise = x + torch.rand_like(x)
        return noise if self.alone else (noise, x * 2)


class NotFinite(nn.Module):
    def forward(self, x):
        return torch.log(x)


def recorded(program: Program, folder: Path, **options) -> dict[str, mx.array]:
    """The arrays of the certificate, after the self-test has passed."""
    program.save(folder, extras=CERTIFIED, **options)
    generated = runpy.run_path(str(folder / "model_mlx.py"))
    assert generated["selftest"]()
    arrays = mx.load(str(folder / "certificate.safetensors"))
    assert isinstance(arrays, dict)
    return arrays


def test_images_are_recorded_as_the_model_takes_them(tmp_path: Path):
    program = torch2mlx.compile(build(ConvNet), (torch.randn(2, 3, 12, 10),))
    arrays = recorded(program, tmp_path / "out")
    assert {key: a.shape for key, a in arrays.items()} == {
        "input.x": (2, 12, 10, 3),
        "output": (2, 4),
    }


def test_tokens_and_named_outputs(tmp_path: Path):
    model, inputs = bert()
    arrays = recorded(torch2mlx.compile(model, (), inputs), tmp_path / "out")
    assert sorted(arrays) == [
        "input.attention_mask",
        "input.input_ids",
        "output.last_hidden_state",
        "output.pooler_output",
    ]


def test_nested_inputs_and_outputs(tmp_path: Path):
    args = (torch.randn(2, 3), torch.tensor([[True, False, True]])), {
        "a": torch.ones(3)
    }
    arrays = recorded(torch2mlx.compile(Nested(), args), tmp_path / "out")
    assert sorted(arrays) == [
        "input.pair.0",
        "input.pair.1",
        "input.scale.a",
        "output.mask",
        "output.sum.0",
        "output.sum.1",
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_half_precision(tmp_path: Path, dtype: str):
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),))
    arrays = recorded(program, tmp_path / "out", dtype=dtype)
    assert arrays["output"].dtype == mx.float32


def test_a_model_in_bfloat16(tmp_path: Path):
    program = torch2mlx.compile(build(MLP).bfloat16(), (torch.randn(2, 8).bfloat16(),))
    arrays = recorded(program, tmp_path / "out")
    assert {a.dtype for a in arrays.values()} == {mx.bfloat16}


def test_state_begins_as_it_is_stored(tmp_path: Path):
    model = Counting()
    arrays = recorded(torch2mlx.compile(model, (torch.ones(2, 3),)), tmp_path / "out")
    assert arrays["output"].tolist() == [[3.0] * 3] * 2
    assert not model.total.any()


def test_nan_is_part_of_the_proof(tmp_path: Path):
    program = torch2mlx.compile(NotFinite(), (torch.tensor([-1.0, 0.0, 1.0]),))
    found = recorded(program, tmp_path / "out")["output"]
    assert str(found.tolist()) == "[nan, -inf, 0.0]"


def test_random_outputs_are_left_out(tmp_path: Path):
    program = torch2mlx.compile(Noisy(False), (torch.randn(2, 3),))
    assert sorted(recorded(program, tmp_path / "out")) == ["input.x", "output.1"]
    program = torch2mlx.compile(Noisy(True), (torch.randn(2, 3),))
    with pytest.raises(InputError, match="returns nothing to compare"):
        program.save(tmp_path / "alone", extras=CERTIFIED)


def test_a_wrong_port_gets_none(tmp_path: Path):
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),))
    program.source = program.source.replace("self.head(x)", "self.head(x) + 1")
    with pytest.raises(
        InputError, match="since the port is wrong: output .2, 3. differs"
    ):
        program.save(tmp_path / "out", extras=CERTIFIED)
    assert list(tmp_path.iterdir()) == []


def test_other_weights_than_the_models_get_none(tmp_path: Path):
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),))
    program.save(tmp_path / "one")
    torch.manual_seed(1)
    other = torch2mlx.compile(MLP().eval(), (torch.randn(2, 8),))
    with pytest.raises(InputError, match="since the port is wrong"):
        other.save(tmp_path / "two", weights=tmp_path / "one", extras=CERTIFIED)
