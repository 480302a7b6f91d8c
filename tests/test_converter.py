"""`torch2mlx.converter`: every rule against the layers themselves, and what it refuses."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as mnn
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.lowering import to_mlx, to_numpy
from tests.weights.test_safetensors import random_bits
from torch2mlx.converter import (
    LAYERS,
    ConversionWarning,
    convert,
    flatten,
    load_converted,
    unflatten,
)
from torch2mlx.converter.rules import Rule, register
from torch2mlx.errors import InputError
from torch2mlx.weights import DTYPES, Inverse, open_file

LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


# PyTorch's layer, MLX's layer, the input, whether channels go last
LAYER_CASES: dict[str, tuple[nn.Module, Any, torch.Tensor, bool]] = {
    "Linear": (nn.Linear(3, 4), mnn.Linear(3, 4), images(2, 3), False),
    "Embedding": (
        nn.Embedding(7, 4),
        mnn.Embedding(7, 4),
        torch.tensor([[1, 6]]),
        False,
    ),
    "LayerNorm": (nn.LayerNorm(5), mnn.LayerNorm(5), images(2, 5), False),
    "RMSNorm": (nn.RMSNorm(5, eps=1e-5), mnn.RMSNorm(5), images(2, 5), False),
    "GroupNorm": (
        nn.GroupNorm(2, 4),
        mnn.GroupNorm(2, 4, pytorch_compatible=True),
        images(2, 4, 5, 3),
        True,
    ),
    "BatchNorm1d": (nn.BatchNorm1d(4), mnn.BatchNorm(4), images(2, 4), False),
    "BatchNorm2d": (nn.BatchNorm2d(4), mnn.BatchNorm(4), images(2, 4, 3, 5), True),
    "PReLU": (nn.PReLU(), mnn.PReLU(), images(2, 4), False),
    "Conv1d": (nn.Conv1d(3, 4, 2), mnn.Conv1d(3, 4, 2), images(2, 3, 9), True),
    "Conv2d": (
        nn.Conv2d(3, 4, (2, 3)),
        mnn.Conv2d(3, 4, (2, 3)),
        images(2, 3, 9, 8),
        True,
    ),
    "Conv3d": (
        nn.Conv3d(3, 4, (1, 2, 3)),
        mnn.Conv3d(3, 4, (1, 2, 3)),
        images(2, 3, 4, 5, 6),
        True,
    ),
    "ConvTranspose1d": (
        nn.ConvTranspose1d(3, 4, 2),
        mnn.ConvTranspose1d(3, 4, 2),
        images(2, 3, 9),
        True,
    ),
    "ConvTranspose2d": (
        nn.ConvTranspose2d(3, 4, (2, 3)),
        mnn.ConvTranspose2d(3, 4, (2, 3)),
        images(2, 3, 5, 6),
        True,
    ),
    "ConvTranspose3d": (
        nn.ConvTranspose3d(3, 4, (1, 2, 3)),
        mnn.ConvTranspose3d(3, 4, (1, 2, 3)),
        images(2, 3, 4, 5, 6),
        True,
    ),
    "LSTM": (
        nn.LSTM(3, 4, batch_first=True),
        mnn.LSTM(3, 4),
        images(2, 5, 3),
        False,
    ),
    "GRU": (nn.GRU(3, 4, batch_first=True), mnn.GRU(3, 4), images(2, 5, 3), False),
    "RNN": (nn.RNN(3, 4, batch_first=True), mnn.RNN(3, 4), images(2, 5, 3), False),
}


@pytest.mark.parametrize("name", LAYER_CASES)
def test_layers(name: str, tmp_path: Path):
    layer, twin, x, channels = LAYER_CASES[name]
    layer.eval()
    twin.eval()
    for parameter in [*layer.parameters(), *layer.buffers()]:
        if parameter.is_floating_point():
            nn.init.uniform_(parameter, 0.5, 1.5)
    path = tmp_path / "weights.safetensors"
    done = convert(layer, path)
    assert done.coverage == 1 and not done.unmapped
    twin.load_weights(str(path), strict=True)
    with torch.no_grad():
        wanted = layer(x)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    found = twin(to_mlx(x.permute(LAST[x.ndim]) if channels else x))
    found = found[0] if isinstance(found, tuple) else found
    if channels:
        wanted = wanted.permute(LAST[x.ndim])
    np.testing.assert_allclose(to_numpy(found), wanted.numpy(), rtol=1e-4, atol=1e-5)
    # By a map of classes it is the same, without the model
    bare = {key: value.numpy() for key, value in layer.state_dict().items()}
    again = tmp_path / "again.safetensors"
    convert({f"a.b.{k}": v for k, v in bare.items()}, again, {"a.b": name})
    first, second = open_file(path), open_file(again)
    assert {f"a.b.{key}" for key in first} == set(second)
    for key in first:
        assert first[key].tobytes() == second[f"a.b.{key}"].tobytes()


@pytest.mark.parametrize("dims", [{}, {"kdim": 6, "vdim": 5}])
def test_attention(dims: dict[str, int], tmp_path: Path):
    attention = nn.MultiheadAttention(4, 2, batch_first=True, **dims)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    path = tmp_path / "w.safetensors"
    convert(attention, path)
    twin = mnn.MultiHeadAttention(
        4,
        2,
        key_input_dims=dims.get("kdim"),
        value_input_dims=dims.get("vdim"),
        bias=True,
    )
    weights = mx.load(str(path))
    if "query_proj.bias" not in weights:
        pytest.fail("the biases are lost")
    twin.load_weights(list(weights.items()), strict=True)
    q = torch.randn(2, 3, 4)
    k, v = torch.randn(2, 5, dims.get("kdim", 4)), torch.randn(
        2, 5, dims.get("vdim", 4)
    )
    with torch.no_grad():
        wanted = attention(q, k, v)[0].numpy()
    found = twin(to_mlx(q), to_mlx(k), to_mlx(v))
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=1e-4, atol=1e-5)


def test_every_rule_is_tested():
    here = {*LAYER_CASES, "MultiheadAttention", "Bilinear", "Conv1D"}
    alike = {"BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"}
    assert here | alike == LAYERS.keys()


def test_layers_of_transformers_and_bilinear(tmp_path: Path):
    from tests.support import declare_torchvision_ops

    declare_torchvision_ops()
    from transformers.pytorch_utils import Conv1D

    net = nn.ModuleDict({"a": Conv1D(5, 3), "b": nn.Bilinear(2, 3, 4)})
    convert(net, tmp_path / "w")
    mapped = open_file(tmp_path / "w")
    assert mapped["a.weight"].tolist() == net["a"].weight.T.tolist()
    twin = mnn.Bilinear(2, 3, 4)
    twin.load_weights(
        [(k[2:], mx.array(mapped[k])) for k in mapped if k.startswith("b.")]
    )
    x, y = torch.randn(6, 2), torch.randn(6, 3)
    found = to_numpy(twin(to_mlx(x), to_mlx(y)))
    np.testing.assert_allclose(found, net["b"](x, y).detach().numpy(), atol=1e-5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.blocks = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.rnn = nn.LSTM(3, 4, num_layers=2)


def test_layers_without_a_rule_are_named(tmp_path: Path):
    net = Net()
    with pytest.warns(ConversionWarning) as caught:
        done = convert(net, tmp_path / "w")
    text = str(caught[0].message)
    assert caught[0].filename == __file__
    assert text.startswith("28.2% of the parameters converted by rule; copied as")
    assert "the model (Net), rnn (LSTM: 'bias_hh_l1': MLX has one layer" in text
    assert set(done.unmapped) == {"", "rnn"}
    assert done.plan.aliases == {"head.weight": "embed.weight"}
    assert set(done.plan.unused) == {"blocks.1.num_batches_tracked"}
    file = open_file(tmp_path / "w")
    assert "head.weight" not in file
    assert file["blocks.0.weight"].tolist() == (
        net.blocks[0].weight.permute(0, 2, 3, 1).tolist()
    )


def test_the_plan_leads_back(tmp_path: Path):
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = convert(net, tmp_path / "w").plan
    back = Inverse(plan, open_file(tmp_path / "w"))
    state = net.state_dict()
    assert {*back, *plan.unused} == set(state)
    for key in back:
        assert back[key].tobytes() == state[key].numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_as_it_is(dtype: str, tmp_path: Path):
    array = random_bits(dtype, (4, 3, 2))
    names = {
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    }
    tensor = torch.from_numpy(array.copy())
    value: Any = tensor.view(names[dtype]) if dtype in names else array
    convert({"c.weight": value}, tmp_path / "w", {"c": nn.Conv1d})
    file = open_file(tmp_path / "w")
    assert file.tensors["c.weight"].dtype == dtype
    assert file["c.weight"].tobytes() == array.transpose(0, 2, 1).tobytes()


def test_arrays_of_another_byte_order(tmp_path: Path):
    convert({"bias": np.arange(3, dtype=">f4")}, tmp_path / "w")
    assert load_converted(tmp_path / "w")["bias"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ({"conv.weight": (8, 3, 3, 3), "conv.bias": (8,)}, "conv.weight [8, 3, 3, 3]"),
        ({"weight": (2, 3, 4)}, "weight [2, 3, 4]"),
        ({"rnn.weight_ih_l0": (8, 2)}, "rnn.weight_ih_l0 [8, 2]"),
        ({"attn.in_proj_bias": (12,)}, "attn.in_proj_bias [12]"),
        ({f"{i}.w": (1, 1, 1) for i in range(10)}, "7.w [1, 1, 1] and 2 more"),
    ],
)
def test_nothing_is_guessed(shapes: dict[str, Any], named: str, tmp_path: Path):
    arrays = {key: np.zeros(shape) for key, shape in shapes.items()}
    with pytest.raises(InputError, match="would have to be guessed: ") as caught:
        convert(arrays, tmp_path / "w")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_needs_no_guess(tmp_path: Path):
    arrays = {
        "fc.weight": np.ones((2, 3)),
        "bn.running_mean": np.zeros(3, "f4"),
        "bn.num_batches_tracked": np.array(7),
        "step": np.array(1),
    }
    done = convert(arrays, tmp_path / "w")
    assert done.coverage == 1
    assert set(open_file(tmp_path / "w")) == {"fc.weight", "bn.running_mean", "step"}


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"cov": "Conv2d"}, "modules: no key begins with 'cov'"),
        (
            {"conv": "Conv4d"},
            "modules: 'conv' is a Conv4d, which has no rule; there are",
        ),
    ],
)
def test_wrong_maps(modules: dict[str, str], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        convert({"conv.weight": np.zeros((2, 2, 2, 2))}, tmp_path / "w", modules)


def test_a_layer_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Turned(nn.Linear):
        pass

    register("Turned", Rule("Linear", {"weight": (1, 0)}))
    try:
        with pytest.raises(ValueError, match="Turned has a rule already"):
            register("Turned", Rule("Linear"))
        layer = Turned(2, 3)
        convert(layer, tmp_path / "w")
        assert open_file(tmp_path / "w")["weight"].shape == (2, 3)
    finally:
        del LAYERS["Turned"]


def test_a_class_that_only_has_the_name_of_a_layer(tmp_path: Path):
    class Conv2d(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3, 4, 5))

    with pytest.warns(ConversionWarning, match="copied as they are: the model"):
        convert(Conv2d(), tmp_path / "w")
    assert open_file(tmp_path / "w")["weight"].shape == (2, 3, 4, 5)


def test_trees():
    flat = {"a.0.b": 1, "a.1.b": 2, "c.x": 3, "c.1": 4, "d": 5}
    tree = {"a": [{"b": 1}, {"b": 2}], "c": {"x": 3, "1": 4}, "d": 5}
    assert unflatten(flat) == tree
    assert flatten(tree) == flat
    assert unflatten({}) == {} and flatten({}) == {}
    with pytest.raises(ValueError, match="a key of 'a.b' has a value of its own"):
        unflatten({"a": 1, "a.b": 2})
    with pytest.raises(ValueError, match="'a' has a value and keys below it"):
        unflatten({"a.b": 2, "a": 1})


def test_what_is_loaded_updates_a_model(tmp_path: Path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).bfloat16()
    convert(net, tmp_path / "w")
    tree = load_converted(tmp_path / "w")
    assert flatten(tree)["0.weight"].dtype == np.float32
    assert tree["0"]["bias"].tolist() == net[0].bias.float().tolist()


ALONE = """
import sys
sys.path[:0] = sys.argv[2:]
import numpy as np
from torch2mlx.converter import convert, load_converted
arrays = {"c.weight": np.arange(24, dtype="f4").reshape(2, 3, 2, 2)}
convert(arrays, sys.argv[1], {"c": "Conv2d"})
print(load_converted(sys.argv[1])["c"]["weight"].shape)
for name in ("torch", "mlx", "jinja2"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        print("no", name)
"""


def test_numpy_is_enough(tmp_path: Path):
    """An interpreter whose only packages are torch2mlx, numpy and safetensors."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ("numpy", "safetensors"):
        found = Path(importlib.import_module(name).__file__ or "").parent
        for folder in (found, found.with_name(f"{name}.libs")):
            if folder.exists():
                (site / folder.name).symlink_to(folder)
    ours = Path(torch2mlx.__file__).parents[1]
    paths = [str(site), str(ours)]
    file = str(tmp_path / "w.safetensors")
    command = [sys.executable, "-I", "-S", "-c", ALONE, file, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = "(2, 2, 2, 3)\nno torch\nno mlx\nno jinja2\n"
    assert (done.stdout, done.stderr) == (wanted, "")
