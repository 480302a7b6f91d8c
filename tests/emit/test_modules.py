"""Module structures that the emitter must get right: every one is compiled, run and compared."""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import pytest
import torch
from torch import nn

import torch2mlx
from tests.program import check
from torch2mlx.errors import UnsupportedError

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


class Shared(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(torch.relu(self.fc(x)))


class Block(nn.Module):
    def __init__(self, dim: int, hidden: int, gate: bool = False):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.gate = nn.Linear(dim, dim) if gate else None

    def forward(self, x):
        y = self.fc2(torch.relu(self.fc1(x)))
        if self.gate is not None:
            y = self.gate(y)
        return x + y


class SharedBlock(nn.Module):
    """One module with submodules, called twice."""

    def __init__(self):
        super().__init__()
        self.block = Block(8, 16)

    def forward(self, x):
        return self.block(self.block(x) * 2)


class Blocks(nn.Module):
    """A list of blocks of different widths, one with an extra layer."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            [Block(8, 16), Block(8, 24), Block(8, 16, gate=True)]
        )

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Named(nn.Module):
    """Modules in a dict, and a Sequential with names."""

    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleDict({"left": Block(8, 16), "right": Block(8, 8)})

    def forward(self, x):
        return self.towers["left"](x) - self.towers["right"](x)


class Tied(nn.Module):
    """A head that shares the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.body = Block(8, 16)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.body(self.embed(ids)))


class Reached(nn.Module):
    """A module whose child is called by somebody else, and whose parameter is read from outside."""

    def __init__(self):
        super().__init__()
        self.inner = Block(8, 16)
        self.scale = nn.Parameter(torch.randn(8))
        self.other = nn.Module()
        self.other.shift = nn.Parameter(torch.randn(8))
        self.other.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.inner(x) * self.scale + self.other.fc(x) + self.other.shift


class AdoptedParameter(nn.Module):
    """The parent adds a parameter of a child that the child itself does not read."""

    def __init__(self):
        super().__init__()
        self.child = Block(8, 16)
        self.child.bonus = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.child(x) + self.child.bonus


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x, scale: int, shift: bool):
        y = torch.relu(self.fc(x)) * scale
        return y + 1 if shift else y


class CalledDifferently(nn.Module):
    """One module whose calls do not do the same."""

    def __init__(self):
        super().__init__()
        self.scaled = Scaled()
        self.other = Scaled()

    def forward(self, x):
        x = self.scaled(self.scaled(x, 2, False), 3, False)
        return self.other(self.other(x, 2, False), 2, True)


class ReachedInto(nn.Module):
    """The parent also calls a submodule of its child."""

    def __init__(self):
        super().__init__()
        self.child = Block(8, 16, gate=True)

    def forward(self, x):
        return self.child(x) + torch.tanh(self.child.gate(x))


class Buffers(nn.Module):
    """Arrays that PyTorch does not train."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(8))
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return x * self.weight + self.table


class Two(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class ManyOutputs(nn.Module):
    def __init__(self, structure: str):
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.structure = structure

    def forward(self, x):
        y = self.fc(x)
        a, b = y[:, :2], y[:, 2:]
        if self.structure == "dict":
            return {"a": a, "rest": [b, {"x": x}]}
        if self.structure == "named":
            return Two(a, b)
        return (a, b, x) if self.structure == "tuple" else [b, a]


class ManyInputs(nn.Module):
    def forward(
        self, xs: list[torch.Tensor], named: dict[str, torch.Tensor], k: float = 2.0
    ):
        return xs[0] + k * xs[1] - named["last"]


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x, memory):
        memory = memory + self.fc(x)
        return torch.tanh(memory), memory


class Passed(nn.Module):
    """Blocks that take and return two values."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList([Step() for _ in range(3)])

    def forward(self, x):
        memory = torch.zeros_like(x)
        for step in self.steps:
            x, memory = step(x, memory)
        return x, memory


class Strided(nn.Module):
    """Only every other module of a list is called."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])

    def forward(self, x):
        return self.layers[2](torch.relu(self.layers[0](x)))


class Functional(nn.Module):
    """Layers that no module stands for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        y = nn.functional.linear(x, self.weight, self.bias)
        return nn.functional.dropout(y, 0.5, self.training)


class Swapped(nn.Module):
    """Values that are needed again after others took their names."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.a(x)
        x, y = y, x
        x = x + self.b(y)
        return x * y + torch.sigmoid(x)


SINGLE_INPUT = {
    "shared": Shared(),
    "shared block": SharedBlock(),
    "blocks": Blocks(),
    "named": Named(),
    "reached": Reached(),
    "adopted": AdoptedParameter(),
    "passed": Passed(),
    "strided": Strided(),
    "functional": Functional(),
    "swapped": Swapped(),
    "called differently": CalledDifferently(),
    "reached into": ReachedInto(),
    "buffers": Buffers(),
    "nested": nn.Sequential(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 2))
    ),
    "identity": nn.Sequential(
        nn.Identity(), nn.Linear(8, 8), nn.Identity(), nn.Linear(8, 8)
    ),
}


@pytest.mark.parametrize("name", SINGLE_INPUT)
def test_structure(name: str) -> None:
    check(SINGLE_INPUT[name], (X,), (Y,))


@pytest.mark.parametrize("structure", ["dict", "named", "tuple", "list"])
def test_outputs(structure: str) -> None:
    check(ManyOutputs(structure), (X,), (Y,))


def test_inputs() -> None:
    def inputs(rows: int) -> tuple[Any, ...]:
        return [torch.randn(rows, 8), torch.randn(rows, 8)], {
            "last": torch.randn(rows, 8)
        }

    check(ManyInputs(), inputs(2), inputs(3))


def test_tied_weights_are_one_parameter() -> None:
    program = check(
        Tied(), (torch.arange(6).reshape(2, 3),), (torch.arange(8).reshape(2, 4),)
    )
    assert [entry.key for entry in program.plan.entries].count("embed.weight") == 1
    assert program.plan.aliases == {"head.weight": "embed.weight"}


def test_parameter_paths_are_the_state_dict_keys() -> None:
    for name, model in SINGLE_INPUT.items():
        if name in ("nested", "identity", "strided"):
            continue  # a bare Sequential keeps its modules in `layers`; two layers are never called
        program = check(model, (X,))
        keys = {entry.key for entry in program.plan.entries}
        assert keys == set(model.state_dict())


def test_buffers_do_not_train() -> None:
    program = check(Buffers(), (X,))
    assert set(program.load().trainable_parameters()) == {"weight"}
    assert set(program.load().parameters()) == {"weight", "table"}


def test_a_weight_in_two_layouts_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).sum() + (self.conv.weight * x[:1, :, :3, :3]).sum()

    with pytest.raises(
        UnsupportedError, match=r"`conv.weight` is also used by an operator"
    ):
        torch2mlx.compile(Twice(), (torch.randn(2, 3, 8, 8),))


def test_sizes_that_would_be_wrong_are_refused() -> None:
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ids", torch.arange(16)[None], persistent=False)
            self.table = nn.Embedding(16, 8)

        def forward(self, x):
            return x.squeeze() + self.table(self.ids[:, : x.shape[1]])

    x = torch.randn(2, 5, 8)
    module = check(Positions(), (x,), (torch.randn(3, 16, 8),)).load()
    with pytest.raises(ValueError, match="x must have 2 <= T <= 16, not 17"):
        module(mx.zeros((2, 17, 8)))
    with pytest.raises(ValueError, match="x must have B >= 2, not 1"):
        module(mx.zeros((1, 5, 8)))


def test_helpers_bring_their_imports() -> None:
    class Pooled(nn.Module):
        def forward(self, x):
            pooled = nn.functional.max_pool2d(x, 2, dilation=2, ceil_mode=True)
            return nn.functional.interpolate(pooled, scale_factor=1.7, mode="bicubic")

    source = check(Pooled(), (torch.randn(2, 3, 11, 9),), tolerance=1e-4).source
    assert "\n\nimport math\nfrom dataclasses import dataclass\n" in source
    assert (
        "    float32 [B, H2, W2, C], channels last (PyTorch: [B, C, H2, W2])\n"
        in source
    )


def test_widths_are_constructor_parameters() -> None:
    source = check(Blocks(), (X,)).source
    assert "class Block(nn.Module):" in source
    assert "def __init__(self, output_dims: int, gate: bool = False):" in source
    assert "self.blocks = [Block(16), Block(24), Block(16, gate=True)]" in source


def test_repeats_are_a_loop() -> None:
    source = check(Passed(), (X,)).source
    assert "self.steps = [Step() for _ in range(3)]" in source
    assert (
        "        for layer in self.steps:\n            x, memory = layer(x, memory)\n"
        in source
    )


class Pixels(nn.Module):
    """Variables and attributes with names that the generated file needs."""

    class Inner(nn.Module):
        def __init__(self, state: int):
            super().__init__()
            self.state = state
            self.fc = nn.Linear(8, state)
            self.scale = nn.Parameter(torch.randn(state))

        def forward(self, x):
            pixels = torch.nn.functional.grid_sample(
                x[:, None, None], x[:, None, None, :2].tanh(), align_corners=False
            )
            inside = self.fc(x) * self.scale * self.state
            mx = torch.relu(inside)
            return mx.sum(1) + pixels.sum((1, 2, 3))

    def __init__(self):
        super().__init__()
        self.first, self.second = Pixels.Inner(4), Pixels.Inner(6)

    def forward(self, nn):
        return self.first(nn) + self.second(nn)


def test_names_of_the_file_are_not_hidden() -> None:
    check(Pixels(), (X,), (Y,), tolerance=1e-4)


class NormedEmbedding(nn.Embedding):
    def __init__(self, rows: int, width: int):
        super().__init__(rows, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(ids))


class Texts(nn.Module):
    """Uses parts of modules that it does not call: they are elements of dicts and lists."""

    def __init__(self):
        super().__init__()
        self.text = nn.ModuleDict({"embed": NormedEmbedding(9, 4)})
        self.tables = nn.ModuleList([NormedEmbedding(9, 4), NormedEmbedding(5, 4)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.text["embed"](ids) + self.tables[0](ids) + self.tables[1](ids % 5)


def test_a_layer_in_a_container_with_modules_of_its_own() -> None:
    source = check(Texts(), (torch.randint(0, 9, (2, 3)),)).source
    assert 'self.text["embed"].norm = nn.LayerNorm(4)' in source
    assert "self.tables[1].norm = nn.LayerNorm(4)" in source


class Projected(nn.Module):
    """A loop inside a loop over two lists, of which one is called `layers`."""

    def __init__(self):
        super().__init__()
        projections = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)]
        self.projections = nn.ModuleList(projections)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    def forward(self, x):
        return tuple(
            layer(projection(x + i).relu())
            for i, (projection, layer) in enumerate(
                zip(self.projections, self.layers, strict=True)
            )
        )


def test_a_loop_inside_a_loop_keeps_the_outer_one_s_elements() -> None:
    source = check(Projected(), (X,), (Y,)).source
    assert source.count("for layer in projection:") == 1
