"""The generated `sanitize`: what it makes of a checkpoint is what the plan says, and nothing twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import black
import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import torch2mlx
from tests.golden.models import MLP
from tests.test_api import NAMES
from torch2mlx.emit.loading import Loading
from torch2mlx.emit.module import MODE
from torch2mlx.emit.renames import renaming
from torch2mlx.emit.sanitize import sanitize
from torch2mlx.emit.selection import condition
from torch2mlx.emit.syntax import text
from torch2mlx.weights import WeightEntry, WeightPlan, apply

Arrays = dict[str, mx.array]
WITHIN_A_CLASS = replace(MODE, line_length=MODE.line_length - 4)


def run(method: str, weights: Arrays) -> Arrays:
    namespace: dict[str, Any] = {"mx": mx, "re": re}
    exec(method, namespace)
    return namespace["sanitize"](None, weights)


def checkpoint(plan: WeightPlan, state: dict[str, torch.Tensor]) -> None:
    """A state dict becomes what the plan makes of it; that stays as it is."""
    method = sanitize(plan)
    arrays = {key: tensor.detach().float().numpy() for key, tensor in state.items()}
    wanted = {entry.key: apply(entry, arrays) for entry in plan.entries}
    made = run(method, {key: mx.array(array) for key, array in arrays.items()})
    assert made.keys() == wanted.keys()
    for key, array in wanted.items():
        assert made[key].tolist() == array.tolist(), key
    again = run(method, made)
    assert again.keys() == made.keys()
    assert all(again[key] is made[key] for key in made)
    lines = black.format_str(method, mode=WITHIN_A_CLASS).splitlines()
    assert max(map(len, lines)) <= WITHIN_A_CLASS.line_length


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.update = nn.Linear(3, 3)
        self.lstm = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
        self.gru = nn.ModuleList(nn.GRU(8, 8, batch_first=True) for _ in range(2))

    def forward(self, x):
        x, _ = self.lstm(self.update(x))
        for gru in self.gru:
            x, _ = gru(x)
        return x


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.head(self.embed(x))


class Hostile(nn.Module):
    def __init__(self):
        super().__init__()
        for name in NAMES:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        for name in NAMES:
            x = getattr(self, name)(x)
        return x


class Many(nn.Module):
    """Square kernels first: only one that is not square tells."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Identity()
            )
            for _ in range(3)
        )
        self.wide = nn.ConvTranspose2d(3, 5, (2, 3))

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.wide(x)


MODELS: dict[str, tuple[type[nn.Module], tuple[torch.Tensor, ...]]] = {
    "recurrent": (Recurrent, (torch.randn(2, 5, 3),)),
    "tied": (Tied, (torch.tensor([[1, 2, 3], [4, 5, 6]]),)),
    "hostile": (Hostile, (torch.randn(2, 4),)),
    "many": (Many, (torch.randn(2, 3, 8, 9),)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path):
    cls, args = MODELS[name]
    torch.manual_seed(0)
    net = cls().eval()
    program = torch2mlx.compile(net, args)
    checkpoint(program.plan, net.state_dict())
    # The generated file loads the checkpoint, and the converted weights, with the same result
    program.save(tmp_path / "out")
    own = {key: value.clone() for key, value in net.state_dict().items()}
    save_file(own, tmp_path / "torch.safetensors")
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "out" / "model_mlx.py")}
    exec((tmp_path / "out" / "model_mlx.py").read_text(), namespace)
    first = namespace["load_model"]()
    second = namespace["load_model"](tmp_path / "torch.safetensors")
    from mlx.utils import tree_flatten

    flat = dict(tree_flatten(first.parameters()))
    other = dict(tree_flatten(second.parameters()))
    assert all(np.array_equal(np.array(flat[k]), np.array(other[k])) for k in flat)


@pytest.mark.parametrize("name", [["weight", "bias"], ["weight"]])
def test_a_layer_alone(name: list[str]):
    net = nn.Linear(3, 4, bias="bias" in name)
    program = torch2mlx.compile(net, (torch.randn(2, 3),))
    assert 'sanitized[f"linear.{key}"] = value' in program.source
    checkpoint(program.plan, net.state_dict())


def test_nothing_to_do_is_not_written():
    program = torch2mlx.compile(MLP(), (torch.randn(2, 16),))
    assert sanitize(program.plan) == ""
    assert "sanitize" not in program.source
    assert "model.load_weights(str(path), strict=True)" in program.source


def one(
    key: str, shape: tuple[int, ...], source: str = "", **fields: Any
) -> WeightEntry:
    return WeightEntry(key, (source or key,), "F32", (shape,), **fields)


LAST = (("transpose", (0, 2, 3, 1)),)


def test_shapes_that_do_not_tell_are_left_alone():
    """A kernel of 3 channels and 3 x 3 looks the same before and after: there is no safe way."""
    plan = WeightPlan((one("conv.weight", (8, 3, 3, 3), steps=LAST),))
    assert sanitize(plan) == ""
    both = WeightPlan((*plan.entries, one("deep.weight", (8, 4, 3, 3), steps=LAST)))
    assert "weights['deep.weight'].shape != (8, 4, 3, 3)" in sanitize(both)


def test_a_counter_of_pytorch_tells():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.conv(x))

    net = Square().eval()
    program = torch2mlx.compile(net, (torch.randn(2, 3, 8, 8),))
    assert 'if "norm.num_batches_tracked" not in weights:' in program.source
    checkpoint(program.plan, net.state_dict())


class Masked(nn.Module):
    """It adds numbers that no formula gives and no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        numbers = torch.tensor([0.1, 0.7, -3.0]).reshape(3, 1, 1)
        self.register_buffer("shift", numbers, persistent=False)

    def forward(self, x):
        return self.conv(x) + self.shift


@pytest.mark.parametrize("sharded", [False, True])
def test_constants_come_from_the_module_s_own_file(sharded: bool, tmp_path: Path):
    """Only they tell here what has been converted."""
    torch.manual_seed(0)
    net = Masked().eval()
    program = torch2mlx.compile(net, (torch.randn(2, 3, 8, 8),))
    assert program.plan.constants == ("shift",)
    output = program.output()
    if sharded:
        output = replace(output, loading=Loading(sharded=True), limit=64)
    folder = program.write(tmp_path / "out", output)
    source = (folder / "model_mlx.py").read_text()
    assert 'if "shift" in weights:' in source
    namespace: dict[str, Any] = {"__file__": str(folder / "model_mlx.py")}
    exec(source, namespace)
    twin = Masked()
    (tmp_path / "torch").mkdir()
    save_file(twin.state_dict(), tmp_path / "torch" / "model.safetensors")
    file = "torch" if sharded else "torch/model.safetensors"
    found = namespace["load_model"](tmp_path / file)
    assert np.array_equal(found.shift, namespace["load_model"]().shift)
    wanted = twin.conv.weight.detach().permute(0, 2, 3, 1)
    assert np.array_equal(found.conv.weight, wanted)
    assert np.array(found.shift).ravel().tolist() == net.shift.ravel().tolist()


def test_a_constant_added_to_a_weight_is_left_to_the_converter():
    entry = WeightEntry("a", ("w", "c"), "F32", ((2,), (2,)), merge="sum")
    assert sanitize(WeightPlan((entry, one("b", (2,), "d")), constants=("c",))) == ""


def test_a_long_condition_compares_one_axis():
    key = "vision_model.embeddings.patch_embedding.projection.weight"
    plan = WeightPlan((one(key, (8, 3, 4, 4), steps=LAST),))
    assert f"if weights['{key}'].shape[1] != 3:" in sanitize(plan)


def test_names_that_change_places_are_left_alone():
    plan = WeightPlan((one("a", (2,), "b"), one("b", (2,), "a")))
    assert sanitize(plan) == ""


def test_numbered_pieces_are_a_loop():
    entries = [
        one(
            f"blocks.{i}.{part}.weight",
            (6, 2),
            f"blocks.{i}.qkv.weight",
            steps=(("slice", 0, 2 * j, 2 * j + 2),),
        )
        for i in range(3)
        for j, part in enumerate("qkv")
    ]
    plan = WeightPlan(tuple(entries))
    method = sanitize(plan)
    assert "for i in range(3):" in method and method.count("sanitized[f") == 3
    state = {f"blocks.{i}.qkv.weight": torch.randn(6, 2) for i in range(3)}
    checkpoint(plan, state)


def test_pieces_under_other_names_are_a_loop_too():
    names = ("left", "right")
    entries = [
        WeightEntry(
            f"{n}.w", (f"{n}.a", f"{n}.b"), "F32", ((2, 2), (1, 2)), merge="concat"
        )
        for n in names
    ]
    plan = WeightPlan((*entries, one("scale", (3,))))
    assert "for prefix in ('left.', 'right.'):" in sanitize(plan)
    state = {
        f"{n}.{p}": torch.randn(r, 2) for n in names for p, r in (("a", 2), ("b", 1))
    }
    checkpoint(plan, state | {"scale": torch.randn(3)})


def test_stacked_arrays():
    sources = tuple(f"experts.{i}.weight" for i in range(3))
    entry = WeightEntry("experts.weight", sources, "F32", ((2, 3),) * 3, merge="stack")
    checkpoint(WeightPlan((entry,)), {source: torch.randn(2, 3) for source in sources})


def test_one_array_used_twice():
    plan = WeightPlan(
        (one("a", (2, 3), "w"), one("b", (2, 3), "w", steps=(("transpose", (1, 0)),)))
    )
    checkpoint(plan, {"w": torch.randn(2, 3)})


def test_lengths_do_not_matter_to_a_long_axis():
    entries = [
        one(f"{i}.scale", (i + 2, 1, 1), steps=(("reshape", (i + 2,)),))
        for i in range(3)
    ]
    plan = WeightPlan(tuple(entries))
    assert "reshape(-1)" in sanitize(plan)
    checkpoint(plan, {f"{i}.scale": torch.randn(i + 2, 1, 1) for i in range(3)})


PARTS = st.sampled_from(["a", "b", "conv", "0", "1", "11", "weight", "bias"])
KEYS = st.sets(
    st.lists(PARTS, min_size=1, max_size=4).map(".".join), min_size=2, max_size=12
)


@given(KEYS, st.data())
def test_conditions_are_exact(keys: set[str], data: st.DataObject):
    wanted = data.draw(st.sets(st.sampled_from(sorted(keys)), min_size=1))
    ranks = {key: data.draw(st.integers(1, 4)) for key in sorted(keys)}
    code = text(condition(wanted, keys - wanted, ranks))
    for key in keys:
        value = np.zeros([1] * ranks[key])
        found = eval(code, {"key": key, "value": value, "re": re})
        assert bool(found) == (key in wanted), code


@given(KEYS, st.data())
def test_renamings_are_exact(keys: set[str], data: st.DataObject):
    names = {
        key: ".".join(
            f"{part}_" if part == "conv" and data.draw(st.booleans()) else part
            for part in key.split(".")
        )
        for key in sorted(keys)
    }
    found = renaming(names)
    if found is None:
        assert all(old == new for old, new in names.items())
        return
    table = eval(text(found.table)) if found.table else None
    for old, new in names.items():
        variables = {"key": old, "names": table}
        if found.before:
            exec(text(found.before), variables)
        assert eval(text(found.name), variables) == new


def test_many_alike_keys_are_a_pattern():
    wanted = {f"layers.{i}.{n}.weight" for i in range(12) for n in ("a", "b")}
    others = {f"layers.{i}.{n}.x.weight" for i in range(12) for n in ("a", "b")}
    others |= {f"head.{i}.{n}.weight" for i in range(12) for n in ("a", "b")}
    code = text(condition(wanted, others, {}))
    assert code.startswith("re.fullmatch(") and len(code) < 100


def test_folded_layers_are_left_to_the_converter():
    net = nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.BatchNorm2d(4)).eval()
    image = torch.randn(2, 3, 8, 9)
    assert "def sanitize" in torch2mlx.compile(net, (image,)).source
    assert "sanitize" not in torch2mlx.compile(net, (image,), fold_bn=True).source


def experts(layer: str, source: str, count: int = 4) -> list[WeightEntry]:
    """Two stacks, one of them of pairs."""
    names = [f"{source}.{i}.{part}" for i in range(count) for part in ("w1", "w3")]
    down = tuple(f"{source}.{i}.w2" for i in range(count))
    shapes = ((2, 3),) * count
    return [
        WeightEntry(
            f"{layer}.up", tuple(names), "F32", shapes * 2, merge="stack", group=2
        ),
        WeightEntry(f"{layer}.down", down, "F32", shapes, merge="stack"),
    ]


def arrays_of(entries: list[WeightEntry]) -> dict[str, torch.Tensor]:
    return {
        source: torch.randn(shape)
        for entry in entries
        for source, shape in zip(entry.sources, entry.shapes, strict=True)
    }


def test_experts_are_loops_in_a_loop():
    """Layers are counted although their names have nothing in common."""
    entries = [
        entry
        for i in range(2, 5)
        for entry in experts(f"layers.{i}.mlp", f"old.h.{i}.experts")
    ]
    plan = WeightPlan(tuple(entries))
    method = sanitize(plan)
    assert "for i in range(2, 5):\n        experts = f'old.h.{i}.experts'" in method
    assert "[weights[f'{experts}.{j}.w2'] for j in range(4)]" in method
    checkpoint(plan, arrays_of(entries))


def test_experts_of_layers_that_do_not_count():
    entries = [*experts("first", "one.experts"), *experts("second", "two.lists.mx")]
    plan = WeightPlan(tuple(entries))
    method = sanitize(plan)
    assert "experts = 'one.experts'" in method and "start = 'two.lists.mx'" in method
    checkpoint(plan, arrays_of(entries))


def test_experts_without_a_name_for_what_they_begin_with():
    """Numbers at the beginning, and such as do not count from 0."""
    (down,) = (e for e in experts("a", "x") if e.group == 1)
    first = replace(down, sources=tuple(f"{i}.w" for i in range(4)))
    other = replace(down, key="b", sources=tuple(f"y.{i}.w" for i in range(1, 5)))
    for entries in ([first], [first, other], experts("a", "x", count=1)):
        plan = WeightPlan(tuple(entries))
        checkpoint(plan, arrays_of(entries))


def test_names_that_differ_in_several_places():
    """Replacements that say as much of where they belong as they must."""
    names = {
        f"encoder.layer.{i}.{old}.{part}": f"layers.{i}.{new}.{part}"
        for i in range(30)
        for old, new in (
            ("attention.attention.query", "attention.q_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("output.dense", "mlp.fc2"),
        )
        for part in ("weight", "bias")
    }
    found = renaming({**names, "norm.weight": "norm.weight"})
    assert found is not None and found.before is not None and found.table is not None
    assert eval(text(found.table)) == {
        "attention.output.dense": "attention.o_proj",
        "attention.query": "q_proj",
        "encoder.layer": "layers",
        "output.dense": "mlp.fc2",
    }


def test_what_begins_alike_is_a_prefix():
    wanted = {f"tower.1.{n}.weight" for n in "abcdefghij"}
    others = {f"tower.0.{n}.weight" for n in "abcdefghij"}
    code = text(condition(wanted, others, {}))
    assert code == "key.startswith('tower.1.')"
