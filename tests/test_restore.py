"""There and back: what `save` writes, `to_torch` returns, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as mnn
import mlx.optimizers
import numpy as np
import pytest
import safetensors.torch
import torch
from mlx.utils import tree_flatten
from torch import nn

import torch2mlx
from tests.emit.test_sanitize import Recurrent, Tied
from tests.test_api import Net
from torch2mlx.errors import InputError
from torch2mlx.restore import restore
from torch2mlx.weights import open_file, shards

CASES: dict[str, tuple[type[nn.Module], tuple[torch.Tensor, ...]]] = {
    "net": (Net, (torch.randn(2, 3, 7, 5),)),
    "recurrent": (Recurrent, (torch.randn(2, 5, 3),)),
    "tied": (Tied, (torch.tensor([[1, 2, 3], [4, 5, 6]]),)),
}
Case = tuple[nn.Module, torch2mlx.Program, Path]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    cls, args = CASES[request.param]
    torch.manual_seed(0)
    net = cls().eval()
    program = torch2mlx.compile(net, args)
    return net, program, program.save(tmp_path / "out")


def same(state: dict[str, Any], net: nn.Module, program: torch2mlx.Program) -> None:
    own = net.state_dict()
    assert own.keys() - state.keys() == set(program.plan.unused)
    assert state.keys() <= own.keys()
    for key, tensor in state.items():
        assert tensor.dtype == own[key].dtype and torch.equal(tensor, own[key]), key


def test_the_same_bits(case: Case):
    net, program, folder = case
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    same(state, net, program)
    # Tied weights are one tensor again
    for alias, owner in program.plan.aliases.items():
        assert state[alias] is state[owner]
    twin = type(net)()
    twin.load_state_dict(state, strict=not isinstance(net, Tied))
    state[next(iter(state))] += 1  # a copy of its own, not the file


@pytest.mark.parametrize("name", ["torch.safetensors", "torch"])
def test_written_for_pytorch(case: Case, name: str, tmp_path: Path):
    net, program, folder = case
    assert torch2mlx.to_torch(folder, tmp_path / name) == tmp_path / name
    file = tmp_path / name
    file = file / "model.safetensors" if file.is_dir() else file
    assert open_file(file).metadata == {"format": "pt"}
    same(safetensors.torch.load_file(file), net, program)


def test_in_shards(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """More than a file holds, on both sides: the generated file loads all of them."""
    net, program, _ = case
    if isinstance(net, Tied):
        pytest.skip("it has one weight")
    output = program.output()
    small = {"limit": 64}
    from dataclasses import replace

    from torch2mlx.emit.loading import Loading

    output = replace(output, loading=Loading(sharded=True), **small)
    folder = program.write(tmp_path / "shards", output)
    assert len(list(folder.glob("model-0*-of-0*.safetensors"))) > 1
    assert not (folder / "model.safetensors").exists()
    namespace: dict[str, Any] = {"__file__": str(folder / "model_mlx.py")}
    exec((folder / "model_mlx.py").read_text(), namespace)
    flat = dict(tree_flatten(namespace["load_model"]().parameters()))
    assert {key: a.tolist() for key, a in flat.items()} == {
        key: a.tolist() for key, a in program.arrays().items()
    }
    monkeypatch.setattr("torch2mlx.restore.MAX_SHARD", 64)
    torch2mlx.to_torch(folder, tmp_path / "torch")
    assert len(list((tmp_path / "torch").glob("model-0*.safetensors"))) > 1
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    same(state, net, program)
    # A smaller model takes the place of the shards
    program.save(folder)
    assert [path.name for path in folder.glob("model*.safetensors*")] == [
        "model.safetensors"
    ]


def test_after_training(tmp_path: Path):
    """Trained in MLX, returned, compiled again: the same weights."""
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 7, 5)
    program = torch2mlx.compile(net, (x,))
    folder = program.save(tmp_path / "out")
    module = program.load()
    module.train()
    optimizer = mlx.optimizers.SGD(0.1)
    images = mx.array(x.permute(0, 2, 3, 1).contiguous().numpy())

    def loss(model: Any) -> mx.array:
        return (model(images) ** 2).mean()

    _, gradients = mnn.value_and_grad(module, loss)(module)
    optimizer.update(module, gradients)
    module.save_weights(str(folder / "model.safetensors"))
    trained = dict(tree_flatten(module.parameters()))
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    assert not torch.equal(state["conv.weight"], net.conv.weight)
    twin = Net().eval()
    twin.load_state_dict(state)
    again = torch2mlx.compile(twin, (x,)).arrays()
    assert again.keys() == trained.keys()
    for key, array in trained.items():
        assert np.array_equal(np.array(array), np.array(again[key]))


def test_a_trained_sum_goes_to_its_first_part(tmp_path: Path):
    net = Recurrent().eval()
    program = torch2mlx.compile(net, (torch.randn(2, 5, 3),))
    folder = program.save(tmp_path / "out")
    assert (folder / "weight_parts.safetensors").exists()
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    key = "lstm.layers.0.bias"
    arrays[key] = arrays[key] + 1
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    assert state["lstm.bias_ih_l0"].tolist() == arrays[key].tolist()
    assert not state["lstm.bias_hh_l0"].any()
    assert torch.equal(state["lstm.bias_hh_l1"], net.lstm.bias_hh_l1)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 64)
        self.inner = nn.Linear(64, 33)
        self.narrow = nn.Linear(33, 64)
        self.head = nn.Linear(64, 40, bias=False)

    def forward(self, tokens):
        x = self.narrow(torch.relu(self.inner(self.embed(tokens))))
        return self.head(x)


QUANTIZED: list[dict[str, Any]] = [
    {"quantize": 4},
    {"quantize": 8, "group_size": 32, "dtype": "float16"},
    {"quantize": 3, "dtype": "bfloat16"},
    {"quantize": 4, "mode": "mxfp4"},
    {"quantize": 4, "mode": "nvfp4", "dtype": "bfloat16"},
    {"quantize": 8, "mode": "mxfp8"},
]


@pytest.mark.parametrize("options", QUANTIZED, ids=str)
def test_quantized(options: dict[str, Any], tmp_path: Path):
    from mlx_lm.utils import load_model

    torch.manual_seed(0)
    net, tokens = Heads().eval(), torch.randint(0, 40, (2, 5))
    program = torch2mlx.compile(net, (tokens,))
    folder = program.save(tmp_path / "out", **options)
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"]
    assert config["quantization"]["bits"] == options["quantize"]
    stored = open_file(folder / "model.safetensors").tensors
    assert stored["embed.weight"].dtype == stored["inner.weight"].dtype == "U32"
    # Its rows are no whole groups
    assert stored["narrow.weight"].dtype != "U32" and "narrow.scales" not in stored
    namespace: dict[str, Any] = {"__file__": str(folder / "model_mlx.py")}
    exec((folder / "model_mlx.py").read_text(), namespace)
    module = namespace["load_model"]()
    assert isinstance(module.inner, mnn.QuantizedLinear)
    assert isinstance(module.narrow, mnn.Linear)
    theirs, _ = load_model(folder, trust_remote_code=True)
    x = mx.array(tokens.numpy())
    assert mx.array_equal(module(x), theirs(x))
    # The same numbers as MLX's own quantization of the whole model
    wanted = program.load()
    dtype = options.get("dtype", "float32")
    wanted.set_dtype(getattr(mx, dtype))
    sizes = {"affine": 64, "mxfp4": 32, "nvfp4": 16, "mxfp8": 32}
    mode = options.get("mode", "affine")
    size = options.get("group_size", sizes[mode])
    mnn.quantize(
        wanted,
        size,
        options["quantize"],
        mode=mode,
        class_predicate=lambda path, layer: path in ("embed", "inner", "head"),
    )
    for key, array in tree_flatten(wanted.parameters()):
        found = dict(tree_flatten(module.parameters()))[key]
        assert found.dtype == array.dtype and mx.array_equal(found, array), key
    # Back, dequantized as MLX computes with it
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    layer = wanted.embed
    whole = mx.dequantize(
        layer.weight,
        layer.scales,
        layer.get("biases"),
        size,
        options["quantize"],
        mode,
        dtype=getattr(mx, dtype),
    )
    assert state["embed.weight"].dtype == getattr(torch, dtype)
    assert state["embed.weight"].float().tolist() == whole.astype(mx.float32).tolist()


@pytest.mark.usefixtures("torchvision_models")
@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
def test_a_quantized_embedding_that_is_the_head_too(kind: str, tmp_path: Path):
    """As mlx_lm does it: the table is quantized once, and `as_linear` computes with that."""
    import transformers
    from mlx_lm.utils import load_model, quantize_model

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        use_cache=False,
    )
    net = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    tokens = torch.randint(0, 96, (2, 5))
    program = torch2mlx.compile(net, (tokens,))
    assert "self.model.embed_tokens.as_linear(" in program.source
    folder = program.save(tmp_path / "out", quantize=4)
    namespace: dict[str, Any] = {"__file__": str(folder / "model_mlx.py")}
    exec((folder / "model_mlx.py").read_text(), namespace)
    module = namespace["load_model"]()
    assert isinstance(module.model.embed_tokens, mnn.QuantizedEmbedding)
    plain, config = load_model(program.save(tmp_path / "plain"), trust_remote_code=True)
    wanted, config = quantize_model(plain, config, 64, 4)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["quantization"] == config["quantization"]
    theirs, _ = load_model(folder, trust_remote_code=True)
    arrays = dict(tree_flatten(wanted.parameters()))
    for other in (module, theirs):
        found = dict(tree_flatten(other.parameters()))
        assert found.keys() == arrays.keys()
        assert all(mx.array_equal(found[key], arrays[key]) for key in arrays)
    x = mx.array(tokens.numpy())
    first, second = (model(x)["logits"] for model in (module, wanted))
    assert mx.array_equal(first, second)
    # The head and the embedding come back under both names
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]


def test_a_weight_that_other_code_reads_is_not_quantized():
    from torch2mlx.quantize import suitable

    net = Heads()
    program = torch2mlx.compile(net, (torch.randint(0, 40, (2, 5)),))
    layers = ["embed", "inner", "narrow"]  # as if there were no head
    settings = torch2mlx.weights.quantization.quantization(4, None, "affine")

    def found(extra: str) -> list[str]:
        return suitable(layers, program.plan, settings, program.source + extra)

    assert found("") == ["embed", "inner"]
    assert found("\nx @ self.embed.weight.T\n") == ["inner"]
    assert found("\nx @ self.stages[0].inner.weight[0]\n") == ["embed"]
    assert found("\nself.weight * x\n") == ["embed", "inner"]
    assert found("\nlayer.weight\n") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dtype": "float8"},
            "unknown dtype 'float8'; it is float32, float16, bfloat16",
        ),
        (
            {"quantize": 4, "mode": "fp4"},
            "unknown mode 'fp4'; the modes are affine, mx",
        ),
        ({"quantize": 7}, "bits of mode affine can be 2, 3, 4, 5, 6, 8, not 7"),
        ({"quantize": 8, "mode": "mxfp4"}, "bits of mode mxfp4 can be 4, not 8"),
        (
            {"quantize": 4, "group_size": 48},
            "group_size of mode affine can be 32, 64, 128, not 48",
        ),
        ({"group_size": 64}, "group_size and mode go with quantize"),
        (
            {"quantize": 4, "group_size": 128},
            "no layer can be quantized: nn.Linear and",
        ),
        ({"weights": "nowhere"}, "cannot read nowhere: No such file or directory"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path):
    program = torch2mlx.compile(Heads(), (torch.randint(0, 40, (2, 5)),))
    with pytest.raises(InputError, match=message):
        program.save(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_another_precision(dtype: str, tmp_path: Path):
    net = Net().eval()
    folder = torch2mlx.compile(net, (torch.randn(2, 3, 7, 5),)).save(
        tmp_path / "out", dtype=dtype
    )
    state = torch2mlx.to_torch(folder)
    assert isinstance(state, dict)
    for key, tensor in state.items():
        wanted = net.state_dict()[key].to(getattr(torch, dtype))
        assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted)


def test_too_large_for_a_precision(tmp_path: Path):
    net = Net().eval()
    nn.init.constant_(net.fc.weight, 1e5)
    program = torch2mlx.compile(net, (torch.randn(2, 3, 7, 5),))
    with pytest.raises(
        InputError, match="weight 'fc.weight' cannot be F16: 1e.05 is too"
    ):
        program.save(tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_model_without_values_and_its_checkpoint(tmp_path: Path):
    """Compiled on the meta device, its weights streamed from a file in another precision."""
    net = Net().bfloat16().eval()
    state = net.state_dict() | {"extra": torch.zeros(2)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with torch.device("meta"):
        program = torch2mlx.compile(Net(), (torch.empty(2, 3, 7, 5),))
    folder = program.save(tmp_path / "out", weights=tmp_path / "w.safetensors")
    assert program.report.unused == ["extra"]
    restored = torch2mlx.to_torch(folder)
    assert isinstance(restored, dict)
    same(restored, net, program)
    del state["fc.bias"], state["conv.weight"]
    safetensors.torch.save_file(state, tmp_path / "less.safetensors")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(
        InputError,
        match=r"less.safetensors lacks the weights 'conv.weight', 'fc.bias'$",
    ):
        program.save(folder, weights=tmp_path / "less.safetensors")
    state = net.state_dict() | {"fc.bias": torch.zeros(7)}
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(
        InputError, match=r"weight 'fc.bias' is float32 \(7,\), expected"
    ):
        program.save(folder, weights=tmp_path / "odd.safetensors")
    assert (folder / "model.safetensors").read_bytes() == before


def test_only_the_other_name_of_a_tied_weight(tmp_path: Path):
    net = Tied().eval()
    program = torch2mlx.compile(net, (torch.tensor([[1, 2, 3], [4, 5, 6]]),))
    state = {"head.weight": net.head.weight.detach().clone()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    folder = program.save(tmp_path / "out", weights=tmp_path / "w.safetensors")
    restored = torch2mlx.to_torch(folder)
    assert isinstance(restored, dict)
    same(restored, net, program)


def test_folders_that_are_not_ours(case: Case, tmp_path: Path):
    _, _, folder = case
    plan = (folder / "weights.json").read_text()
    (folder / "weights.json").unlink()
    with pytest.raises(
        InputError, match=f"^{folder} has no weights.json, which says how"
    ):
        torch2mlx.to_torch(folder)
    other = tmp_path / "plan"
    other.mkdir()
    (other / "weights.json").write_text(plan)
    assert isinstance(torch2mlx.to_torch(folder, plan=other), dict)
    (folder / "weights.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"weights.json is not a weight plan: no 'entries'"
    ):
        torch2mlx.to_torch(folder)
    (folder / "weights.json").write_text(plan)
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    first = sorted(arrays)[0]
    mx.eval(arrays)
    kept = arrays.pop(first)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    with pytest.raises(InputError, match=f"^the folder lacks the weights '{first}'$"):
        torch2mlx.to_torch(folder)
    mx.save_safetensors(
        str(folder / "model.safetensors"), arrays | {first: kept, "lora.a": kept}
    )
    with pytest.raises(
        InputError, match="holds, unknown to its plan, the weights 'lora.a'"
    ):
        restore(folder, tmp_path / "torch")
    assert not (tmp_path / "torch").exists()
    assert shards.is_weights_file("model.safetensors")


def test_a_quantized_folder_that_does_not_say_how(tmp_path: Path):
    program = torch2mlx.compile(Heads(), (torch.randint(0, 40, (2, 5)),))
    folder = program.save(tmp_path / "out", quantize=4)
    (folder / "config.json").write_text("{}")
    with pytest.raises(
        InputError, match="does not say how '(embed|inner|head)' is quantized"
    ):
        torch2mlx.to_torch(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="^cannot read .*config.json: Expecting"):
        torch2mlx.to_torch(folder)
