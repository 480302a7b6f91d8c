"""Where numbers come from: expressions over a configuration, by running and by reading constructors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from torch2mlx.hyperparameters import twin_of
from torch2mlx.hyperparameters.expressions import Expression, Field, Operation
from torch2mlx.hyperparameters.traced import TracedInt, expression_of, traced


class Attention(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.width // config.num_heads
        self.head_size = int(config.width / config.num_heads)
        self.all_sizes = self.num_heads * self.head_size
        self.scale = self.head_dim**-0.5
        self.window = 7
        self.rotary = int(self.head_dim * config.rope["part"])
        self.gate = nn.Linear(int(config.width) * 2, 3)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(self.all_sizes, config.width)
        self.bias = nn.Parameter(torch.zeros(config.num_heads, 1, config.width))


class Net(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        depth = config.num_layers
        self.layers = nn.ModuleList([Attention(config) for _ in range(depth)])
        self.tail = nn.ModuleList([nn.Linear(2, 2) for _ in range(4)])
        self.inner = nn.Linear(config.inner.width, config.base)


def config(**numbers: Any) -> SimpleNamespace:
    # Numbers that agree by accident, as they do in small models
    known = {"num_heads": 4, "width": 16, "num_layers": 4, "base": 16}
    inner = SimpleNamespace(width=16)
    return SimpleNamespace(
        **(known | numbers), inner=inner, rope={"theta": 16.0, "part": 0.6}
    )


def text(expression: Expression | None) -> str:
    if isinstance(expression, Field):
        return ".".join([*expression.path, expression.name])
    if isinstance(expression, Operation):
        sides = text(expression.left), text(expression.right)
        return f"({sides[0]} {expression.operator} {sides[1]})"
    return repr(expression)


def test_attributes_are_expressions() -> None:
    twin = twin_of(Net(config()))
    assert twin is not None
    found = {k: text(v) for k, v in twin.attributes("layers.1").items()}
    assert found == {
        "num_heads": "num_heads",
        "head_dim": "(width // num_heads)",
        "head_size": "(width // num_heads)",
        "all_sizes": "width",
        "scale": "((width // num_heads) ** -0.5)",
        "rotary": "(((width // num_heads) * part) int 0)",
    }


def test_arguments_of_layers_and_shapes_of_arrays() -> None:
    twin = twin_of(Net(config()))
    assert twin is not None
    assert [*map(text, twin.argument("layers.0.qkv", "out_features"))] == [
        "(3 * width)"
    ]
    assert [*map(text, twin.argument("layers.0.out", "in_features"))] == ["width"]
    assert [*map(text, twin.argument("inner", "in_features"))] == ["inner.width"]
    assert [*map(text, twin.shape("layers.0.bias"))] == ["num_heads", "1", "width"]
    assert [*map(text, twin.argument("layers.0.gate", "in_features"))] == [
        "(width * 2)"
    ]
    assert [*map(text, twin.argument("layers.0.gate", "out_features"))] == ["3"]
    assert twin.argument("layers.0.qkv", "weight") == []
    assert twin.shape("layers.0.absent") == []


def test_lengths_of_lists() -> None:
    twin = twin_of(Net(config()))
    assert twin is not None
    assert text(twin.length("layers")) == "num_layers"
    assert twin.length("tail") is None  # four, but not because of a configuration


def test_fields() -> None:
    twin = twin_of(Net(config()))
    assert twin is not None
    names = [text(found) for found in twin.fields()]
    assert names == [
        "num_heads",
        "width",
        "num_layers",
        "base",
        "theta",
        "part",
        "inner.width",
    ]


def test_the_model_and_its_configuration_stay_as_they_were() -> None:
    numbers = config()
    model = Net(numbers)
    before = torch.random.get_rng_state()
    assert twin_of(model) is not None
    assert torch.equal(before, torch.random.get_rng_state())
    assert type(numbers.width) is int and type(numbers.inner.width) is int
    assert type(model.layers[0].head_dim) is int


def test_models_without_a_twin() -> None:
    class Plain(nn.Module):
        pass

    class Demanding(nn.Module):
        def __init__(self, config: Any, width: int):
            super().__init__()
            self.config = config

    class Once(nn.Module):
        made = 0

        def __init__(self, config: Any):
            super().__init__()
            self.config = config
            Once.made += 1
            if Once.made > 1:
                raise RuntimeError("only once")

    assert twin_of(Plain()) is None
    assert twin_of(Demanding(config(), 3)) is None
    assert twin_of(Once(config())) is None
    assert twin_of(nn.Linear(2, 2)) is None


def test_a_variable_that_is_made_of_itself() -> None:
    class Part(nn.Module):
        def __init__(self, config: Any):
            super().__init__()
            config = config.part
            self.width = int(2.5 * config.depth)
            self.width = self.width // 2 + 1
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(config.depth))

    class Whole(nn.Module):
        def __init__(self, config: Any):
            super().__init__()
            self.config = config
            self.part = Part(config)

    twin = twin_of(Whole(SimpleNamespace(depth=7, part=SimpleNamespace(depth=3))))
    assert twin is not None
    assert text(twin.length("part.layers")) == "part.depth"
    assert "width" not in twin.attributes("part")


def test_arithmetic() -> None:
    width = traced(16, Field((), "width", 16))
    heads = traced(4, Field((), "heads", 4))
    assert text(expression_of(2 * width + 1)) == "((2 * width) + 1)"
    assert text(expression_of(width // heads * heads)) == "width"
    assert text(expression_of(width * width)) == "(width ** 2)"
    assert text(expression_of(-0.5 + width / heads)) == "(-0.5 + (width / heads))"
    assert type(width > heads) is bool
    assert torch.equal(torch.ones(2) * width, torch.full((2,), 16.0))
    assert isinstance(width % 3, TracedInt) and width % 3 == 1
    # 15 // 4 * 4 is not 15
    odd = traced(15, Field((), "odd", 15))
    assert text(expression_of(odd // heads * heads)) == "((odd // heads) * heads)"
