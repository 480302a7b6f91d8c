"""Classes whose instances differ in a sum, and lists of layers that grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.program import check

X, Y = torch.randn(2, 8), torch.randn(3, 8)


class Bottleneck(nn.Module):
    def __init__(self, width: int, out: int, sign: int = 1):
        super().__init__()
        self.use_res_connect = width == out
        self.sign = sign
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, out)

    def forward(self, x: Any) -> Any:
        y = self.project(torch.relu(self.expand(x)))
        if not self.use_res_connect:
            return y
        return x + y if self.sign > 0 else x - y


def stages(*blocks: nn.Module) -> nn.Module:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return x

    return Model()


def test_a_residual_that_some_lack() -> None:
    model = stages(Bottleneck(8, 12), Bottleneck(12, 12), Bottleneck(12, 6))
    source = check(model, (X,), (Y,)).source
    assert source.count("class Bottleneck") == 1
    assert "        if self.use_res_connect:\n            y = x + y\n" in source
    assert "use_res_connect: bool = False" in source


def test_a_difference_is_no_residual() -> None:
    model = stages(Bottleneck(8, 12), Bottleneck(12, 12, -1), Bottleneck(12, 6))
    assert check(model, (X,), (Y,)).source.count("class Bottleneck") == 2


class Twice(nn.Module):
    """A sum of two calls: neither summand is what stands for it."""

    def __init__(self, both: bool):
        super().__init__()
        self.a, self.b, self.both = nn.Linear(8, 8), nn.Linear(8, 8), both

    def forward(self, x: Any) -> Any:
        return self.a(x) + self.b(x) if self.both else self.a(self.b(x))


def test_another_use_of_the_same_layers_is_another_class() -> None:
    source = check(stages(Twice(True), Twice(False)), (X,), (Y,)).source
    assert source.count("class Twice") == 2


def test_a_stream_that_is_needed_again() -> None:
    class Doubled(nn.Module):
        def __init__(self, residual: bool):
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.residual = residual

        def forward(self, x: Any) -> Any:
            y = torch.sin(self.fc(x))
            z = y + x if self.residual else y
            return z * y - x

    source = check(stages(Doubled(True), Doubled(False)), (X,), (Y,)).source
    assert source.count("class Doubled") == 1
    assert "if self.residual:" in source


class Layer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4)

    def forward(self, xs: list[Any]) -> Any:
        return self.fc(self.norm(torch.cat(xs, -1)))


class Dense(nn.ModuleDict):
    """As DenseNet has it: named layers that take all that is before them."""

    def __init__(self):
        super().__init__()
        for i in range(5):
            self.add_module(f"layer{i + 1}", Layer(8 + 4 * i))

    def forward(self, x: Any) -> Any:
        xs = [x]
        for layer in self.values():
            xs.append(layer(xs))
        return torch.cat(xs, -1)


class DenseModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = Dense()
        self.head = nn.Linear(28, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.dense(x))


def test_layers_that_take_a_growing_list() -> None:
    program = check(DenseModel(), (X,), (Y,), tolerance=1e-4)
    source = program.source
    assert source.count("class Layer") == 1
    assert (
        'self.dense = {f"layer{i + 1}": Layer(8 + 4 * i) for i in range(5)}' in source
    )
    assert (
        "        for layer in self.dense.values():\n"
        "            x = mx.concatenate([x, layer(x)], axis=-1)\n"
    ) in source
    keys = {entry.key for entry in program.plan.entries}
    assert keys == set(DenseModel().state_dict())


class Branches(nn.Module):
    """A sum of what there is: where one summand is missing, the other stands for the sum."""

    def __init__(self, norm: bool, short: bool):
        super().__init__()
        self.norm = nn.LayerNorm(8) if norm else None
        self.short = nn.Linear(8, 8) if short else None
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: Any) -> Any:
        parts = [part(x) for part in (self.norm, self.short) if part is not None]
        for layer in self.layers:
            parts.append(layer(x))
        return sum(parts[1:], parts[0]).relu()


def test_a_sum_without_either_summand() -> None:
    kinds = (True, True), (True, False), (False, True)
    for order in (kinds, kinds[::-1]):
        check(stages(*(Branches(*kind) for kind in order)), (X,), (Y,))
