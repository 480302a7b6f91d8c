"""Tables that one layer makes for all: made where the layers are called, the layers one class."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.program import check

X, Y = torch.randn(2, 5, 8), torch.randn(3, 7, 8)


class Attention(nn.Module):
    """As in T5: the first one has a table of biases, by distance, and returns them."""

    def __init__(self, has_bias: bool, scaled: bool = False):
        super().__init__()
        self.has_bias, self.scaled = has_bias, scaled
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        if has_bias:
            self.bias = nn.Embedding(4, 1)

    def forward(self, x: Any, position_bias: Any = None) -> Any:
        if position_bias is None:
            length = torch.arange(x.shape[1])
            distance = (length[None] - length[:, None]).abs().clamp(max=3)
            position_bias = self.bias(distance).permute(2, 0, 1)
            if self.scaled:
                position_bias = position_bias * x.mean()
        scores = self.q(x) @ self.k(x).transpose(1, 2) + position_bias
        return scores.softmax(-1) @ x, position_bias


class Layer(nn.Module):
    def __init__(self, has_bias: bool, scaled: bool = False):
        super().__init__()
        self.attention = Attention(has_bias, scaled)

    def forward(self, x: Any, position_bias: Any = None) -> Any:
        y, position_bias = self.attention(x, position_bias)
        return x + y, position_bias


class Stack(nn.Module):
    def __init__(self, count: int, scaled: bool = False):
        super().__init__()
        layers = [Layer(i == 0, scaled) for i in range(count)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        position_bias = None
        for layer in self.layers:
            x, position_bias = layer(x, position_bias)
        return x


def test_a_bias_that_the_first_layer_makes() -> None:
    program = check(Stack(4), (X,), (Y,))
    source = program.source
    assert source.count("class Attention") == source.count("class Layer") == 1
    assert "def __init__(self, has_bias: bool = False):" in source
    assert "        if has_bias:\n            self.bias = nn.Embedding(4, 1)" in source
    assert "self.layers = [Layer(has_bias=i == 0) for i in range(4)]" in source
    assert "position_bias = self.layers[0].attention.bias(" in source
    assert (
        "for layer in self.layers:\n            x = layer(x, position_bias)" in source
    )
    keys = {entry.key for entry in program.plan.entries}
    assert keys == set(Stack(4).state_dict())


def test_two_layers_are_written_out() -> None:
    source = check(Stack(2), (X,), (Y,)).source
    assert "[Layer(has_bias=True), Layer(has_bias=False)]" in source


def test_a_bias_that_depends_on_the_input_stays() -> None:
    source = check(Stack(3, scaled=True), (X,), (Y,)).source
    assert source.count("class Attention") == 2
    assert "self.bias(" in source


class Table(nn.Module):
    """Another class uses the table: nothing would be gained."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        places = self.table(torch.arange(x.shape[1]))
        return self.fc(x) + places, places


def test_a_table_for_another_class_stays() -> None:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Table(), nn.Bilinear(8, 8, 3)

        def forward(self, x: Any) -> Any:
            y, places = self.first(x)
            return self.second(y, places.expand_as(y))

    source = check(Model(), (X,), (Y,)).source
    assert "self.table(" in source


class Parameters(nn.Module):
    """The table is a parameter, which only the first one has."""

    def __init__(self, first: bool):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.randn(8)) if first else None

    def forward(self, x: Any, scale: Any = None) -> Any:
        if scale is None:
            scale = self.scale.exp()
        return self.fc(x) * scale, scale


def test_a_parameter_of_the_first_layer() -> None:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Parameters(True), Parameters(False)

        def forward(self, x: Any) -> Any:
            x, scale = self.first(x)
            return self.second(x, scale)[0]

    program = check(Model(), (X,), (Y,))
    assert program.source.count("class Parameters") == 1
    assert "scale = mx.exp(self.first.scale)" in program.source
    assert {e.key for e in program.plan.entries} == set(Model().state_dict())
