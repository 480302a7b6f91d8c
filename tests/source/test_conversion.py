"""transformers folders whose weights have other names, or are put together: streamed, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from safetensors.torch import load_file, save_file

import torch2mlx
from tests.source.test_huggingface import SMALL, VIT, write
from torch2mlx.source import Source, load
from torch2mlx.weights import open_checkpoint

pytestmark = [
    pytest.mark.usefixtures("torchvision_models"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LAYERS = {**SMALL, "num_hidden_layers": 2, "intermediate_size": 12}
TEXT = {"vocab_size": 40, "num_key_value_heads": 2, **LAYERS}
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 3, **TEXT}
QWEN = {
    "model_type": "qwen2_moe",
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 10,
    "shared_expert_intermediate_size": 12,
    "mlp_only_layers": [0],
    **TEXT,
}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "mixtral": (MIXTRAL, "MixtralForCausalLM"),
    "qwen2_moe": (QWEN, "Qwen2MoeForCausalLM"),
    "vit": ({**VIT, **LAYERS}, "ViTForImageClassification"),
}


def saved(tmp_path: Path, case: str, dtype: torch.dtype = torch.float32) -> Path:
    """A folder as transformers writes it."""
    config, architecture = CASES[case]
    folder = write(tmp_path / case, config, architecture)
    torch.manual_seed(0)
    load(f"hf:{folder}").model.to(dtype).save_pretrained(folder)
    return folder


def compiled(source: Source) -> torch2mlx.Program:
    return torch2mlx.compile(
        source.model, source.args, source.kwargs, name=source.name, **source.options
    )


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[key].dtype == wanted[key].dtype and torch.equal(found[key], wanted[key])
        for key in wanted
    )


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch):
    """What is written without loading the model is what transformers loads, to the bit."""
    import transformers

    folder = saved(tmp_path, case)
    cls = getattr(transformers, CASES[case][1])
    theirs = cls.from_pretrained(folder).state_dict()
    monkeypatch.setattr(cls, "from_pretrained", None)
    source = load(f"hf:{folder}")
    assert same(source.model.state_dict(), theirs)
    wanted = compiled(source).arrays()

    source = load(f"hf:{folder}", values=False)
    experts = [key for key in theirs if "experts." in key and "shared" not in key]
    state = source.model.state_dict()
    assert [key for key, tensor in state.items() if tensor.is_meta] == experts
    out = compiled(source).save(tmp_path / "out", weights=source.checkpoint)
    made = mx.load(str(out / "model.safetensors"))
    assert made.keys() == wanted.keys()
    assert all(mx.array_equal(made[key], wanted[key]) for key in wanted)

    original = load_file(folder / "model.safetensors")
    assert same(torch2mlx.to_torch(out), original)  # type: ignore[arg-type]

    namespace: dict[str, Any] = {"__file__": str(out / "model_mlx.py")}
    exec((out / "model_mlx.py").read_text(), namespace)
    model = namespace["Model"]()
    found = model.sanitize(mx.load(str(folder / "model.safetensors")))
    assert found.keys() == made.keys()
    assert all(mx.array_equal(found[key], made[key]) for key in made)
    assert model.sanitize(made) is made
    loaded = namespace["load_model"](folder / "model.safetensors")
    weight = next(key for key in made if key.endswith("q_proj.weight"))
    from mlx.utils import tree_flatten

    assert mx.array_equal(dict(tree_flatten(loaded.parameters()))[weight], made[weight])


def test_experts_are_a_loop(tmp_path: Path):
    """The first layer has none."""
    source = load(f"hf:{saved(tmp_path, 'qwen2_moe')}", values=False)
    text = compiled(source).source
    assert """\
        for key, value in weights.items():
            if ".experts." in key:
                continue
            sanitized[key] = value
        experts = "model.layers.1.mlp.experts"
        sanitized["model.layers.1.mlp.experts.down_proj"] = mx.stack(
            [weights[f"{experts}.{j}.down_proj.weight"] for j in range(3)]
        ).transpose(0, 2, 1)
""" in text


def test_names_are_a_table(tmp_path: Path):
    source = load(f"hf:{saved(tmp_path, 'vit')}", values=False)
    assert """\
        names = {
            "attention.output.dense": "attention.o_proj",
            "intermediate.dense": "mlp.fc1",
            "attention.query": "q_proj",
            "attention.value": "v_proj",
            "attention.key": "k_proj",
            "encoder.layer": "layers",
            "output.dense": "mlp.fc2",
        }
""" in compiled(source).source


def test_another_dtype_than_the_folder_s(tmp_path: Path):
    """The configuration decides, as it does for transformers; what is cast is streamed, too."""
    import transformers

    folder = saved(tmp_path, "mixtral")
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"dtype": "bfloat16"}
    path.write_text(json.dumps(config))
    theirs = transformers.MixtralForCausalLM.from_pretrained(folder).state_dict()
    assert same(load(f"hf:{folder}").model.state_dict(), theirs)
    source = load(f"hf:{folder}", values=False)
    assert all(tensor.is_meta for tensor in source.model.state_dict().values())
    program = compiled(source)
    out = program.save(tmp_path / "out", weights=source.checkpoint)
    found = open_checkpoint(out)
    assert {info.dtype for info in found.tensors.values()} == {"BF16"}
    key = "model.layers.1.mlp.experts.down_proj"
    wanted = theirs[key].view(torch.uint16).numpy().transpose(0, 2, 1)
    assert found[key].tolist() == wanted.tolist()


def test_what_transformers_does_not_load_is_dropped(tmp_path: Path):
    folder = saved(tmp_path, "vit")
    path = folder / "model.safetensors"
    save_file({**load_file(path), "extra.weight": torch.ones(2)}, path)
    source = load(f"hf:{folder}", values=False)
    program = compiled(source)
    assert program.report.unused == ["extra.weight"]
    assert 'if key == "extra.weight":' in program.source


def test_another_checkpoint_has_the_names_of_the_state_dict(tmp_path: Path):
    folder = saved(tmp_path, "vit")
    model = load(f"hf:{folder}").model
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    source = load(f"hf:{folder}", weights=tmp_path / "own.safetensors")
    assert source.checkpoint == tmp_path / "own.safetensors"
    assert "conversion" not in source.options


def test_what_cannot_be_one_step_is_two(tmp_path: Path):
    """A plan that adds what the conversion cuts."""
    from torch2mlx.weights import WeightEntry, WeightPlan

    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    net = Recurrent().eval()
    state = net.state_dict()
    biases = torch.cat([state["gru.bias_ih_l0"], state["gru.bias_hh_l0"]])
    entries = [
        WeightEntry(key, (f"old.{key}",), "F32", (tuple(state[key].shape),))
        for key in ("gru.weight_ih_l0", "gru.weight_hh_l0")
    ]
    entries += [
        WeightEntry(
            key, ("old.biases",), "F32", ((24,),), (("slice", 0, start, start + 12),)
        )
        for key, start in (("gru.bias_ih_l0", 0), ("gru.bias_hh_l0", 12))
    ]
    old = {f"old.{key}": state[key] for key in state if "weight" in key}
    save_file({**old, "old.biases": biases}, tmp_path / "old.safetensors")
    args = (torch.randn(2, 5, 3),)
    program = torch2mlx.compile(net, args, conversion=WeightPlan(tuple(entries)))
    assert program.original is None
    wanted = program.arrays()
    for parameter in net.parameters():
        parameter.data.zero_()
    out = program.save(tmp_path / "out", weights=tmp_path / "old.safetensors")
    found = mx.load(str(out / "model.safetensors"))
    assert found.keys() == wanted.keys()
    assert all(mx.array_equal(found[key], wanted[key]) for key in wanted)


def test_what_transformers_computes_is_loaded(tmp_path: Path):
    """Weights of other shapes: there is no plan for them."""
    folder = saved(tmp_path, "vit")
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["classifier.bias"]
    save_file(weights, path, {"format": "pt"})
    source = load(f"hf:{folder}")
    assert source.checkpoint is None and "conversion" not in source.options
    assert source.notes[0].startswith("1 weights are not in")
