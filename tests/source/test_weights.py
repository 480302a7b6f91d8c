"""A model's weights from a checkpoint: which files are taken, and what is said of others."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source import load
from torch2mlx.source.loaded import RANDOM_WEIGHTS, Loaded
from torch2mlx.source.weights import assign, parameters_on_meta, with_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.fc.weight

    def forward(self, x):
        return self.norm(self.fc(x)) + self.tied(x)


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = Net()
    nn.init.normal_(net.fc.weight)
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def holds(net: nn.Module, wanted: dict[str, torch.Tensor]) -> bool:
    own = net.state_dict()
    return all(torch.equal(own[key], tensor) for key, tensor in wanted.items())


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped.pt", "old.bin"])
def test_kinds_of_checkpoints(kind: str, tmp_path: Path):
    values, path = state(), tmp_path / f"w.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(values, path)
    elif kind.startswith("wrapped"):
        torch.save({"state_dict": values, "epoch": 3}, path)
    else:
        torch.save(
            values, path, _use_new_zipfile_serialization=not kind.startswith("old")
        )
    before = path.read_bytes()
    loaded = with_weights(Loaded(Net(), "net", notes=(RANDOM_WEIGHTS,)), path)
    assert holds(loaded.model, values) and loaded.notes == ()
    assert loaded.checkpoint == (path if kind == "safetensors" else None)
    net: Any = loaded.model
    assert net.tied.weight is net.fc.weight
    # What is written to the model stays out of the file
    with torch.no_grad():
        net.fc.weight += 1
    assert path.read_bytes() == before


def test_what_is_not_used_is_noted(tmp_path: Path):
    values = state() | {f"old.{i}": torch.zeros(1) for i in range(5)}
    safetensors.torch.save_file(values, tmp_path / "w.safetensors")
    loaded = with_weights(Loaded(Net(), "net"), tmp_path / "w.safetensors")
    note = f"not used of {tmp_path}/w.safetensors: old.0, old.1, old.2 and 2 more"
    assert loaded.notes == (note,)


def test_counters_and_second_names_may_be_missing():
    values = state()
    del values["norm.num_batches_tracked"], values["fc.weight"]
    net = Net()
    assert assign(net, values, "w") == []
    assert holds(net, values) and net.tied.weight is net.fc.weight


def test_refusals(tmp_path: Path):
    values = state()
    del values["norm.weight"], values["norm.bias"]
    with pytest.raises(
        InputError, match="^w lacks the weights 'norm.weight', 'norm.bias'$"
    ):
        assign(Net(), values, "w")
    with pytest.raises(InputError, match=r"'fc.bias' has the shape \[5\], the model w"):
        assign(Net(), state() | {"fc.bias": torch.zeros(5)}, "w")
    files: dict[str, tuple[Any, str]] = {
        "none.pt": (None, "there is no file .*none.pt"),
        "junk.pt": (b"junk", "junk.pt cannot be read as a state dict: "),
        "cut.pt": (b"PK\3\4" + b"\0" * 64, "cut.pt cannot be read as a state dict"),
        "code.bin": (pickle.dumps(print), "code.bin cannot be read as a state dict"),
        "junk.safetensors": (b"junk", "junk.safetensors is not a valid safetensors"),
    }
    for name, (data, message) in files.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(InputError, match=message) as caught:
            with_weights(Loaded(Net(), "net"), path)
        assert "\n" not in str(caught.value)
    for value, kind in (
        ([1], "list"),
        ({"epoch": 3}, "dict"),
        (torch.ones(1), "Tensor"),
    ):
        torch.save(value, tmp_path / "odd.pt")
        with pytest.raises(
            InputError, match=f"odd.pt holds a {kind}, not a state dict"
        ):
            with_weights(Loaded(Net(), "net"), tmp_path / "odd.pt")


def test_an_exported_program_keeps_its_own(tmp_path: Path):
    program = torch.export.export(nn.Linear(3, 4), (torch.randn(2, 3),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(
        InputError, match="an exported program brings its weights along"
    ):
        load(str(tmp_path / "net.pt2"), weights=tmp_path / "w.safetensors")


def test_parameters_take_no_memory_and_buffers_do():
    with parameters_on_meta():
        net = Net()
    assert all(parameter.is_meta for parameter in net.parameters())
    assert not any(buffer.is_meta for buffer in net.buffers())
    assert isinstance(net.fc.weight, nn.Parameter)
    assert not nn.Linear(2, 2).weight.is_meta
    assign(net, state(), "w")
    assert holds(net, state())
