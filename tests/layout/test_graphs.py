"""Random graphs of any rank, all axes of different sizes: the same numbers, and no more bytes transposed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
import torch.fx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layout.rules import CAPTURED, described, numbers
from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.layout.fold import fold_keepdims
from torch2mlx.layout.perms import first, last, nbytes, permutation, rank
from torch2mlx.layout.pins import Pins
from torch2mlx.layout.problem import Problem, by_author
from torch2mlx.layout.rewrite import Rewriter
from torch2mlx.lower.driver import Lowered
from torch2mlx.lower.interpret import MLXInterpreter

aten = torch.ops.aten
Node = torch.fx.Node
Draw = Any


def convolution(x: mx.array) -> mx.array:
    """Stands for one: it wants the channels last, and keeps the shape."""
    return mx.sin(x * mx.arange(1, x.shape[-1] + 1)) + x[..., ::-1]


def reads_all(x: mx.array) -> mx.array:
    """Stands for what has no rule: it wants PyTorch's order."""
    return x + mx.sin(mx.arange(x.size).reshape(x.shape) / x.size)


class Graph:
    """A lowered graph under construction."""

    def __init__(self) -> None:
        self.graph = torch.fx.Graph()
        self.arrays: dict[str, mx.array] = {}
        origins = torch.fx.Graph()
        self.plain = origins.call_function(aten.relu.default)
        self.permute = origins.call_function(aten.permute.default)

    def describe(self, node: Node, value: Any, by_author: bool = False) -> Node:
        described(node, value)
        node.meta["origin"] = self.permute if by_author else self.plain
        return node

    def input(self, shape: tuple[int, ...]) -> Node:
        """An input of the model."""
        return self.describe(self.graph.placeholder("x"), numbers(shape))

    def parameter(self, shape: tuple[int, ...]) -> Node:
        """A parameter."""
        key = f"p{len(self.arrays)}"
        self.arrays[key] = numbers(shape, len(self.arrays))
        node = self.graph.create_node("get_attr", key)
        node.meta["weight"] = Weight((key,))
        return self.describe(node, self.arrays[key])

    def __call__(self, target: Any, *args: Any, by_author: bool = False) -> Node:
        node = self.graph.call_function(target, args)
        values = torch.fx.map_arg(args, lambda n: n.meta["hint"])
        return self.describe(node, target(*values), by_author)

    def convolve(self, x: Node) -> Node:
        """A convolution as lowering writes it: in PyTorch's order, with explicit transposes."""
        y = self(convolution, self(mx.transpose, x, last(rank(x))))
        return self(mx.transpose, y, first(rank(x)))

    def linear(self, x: Node, size: int = 3) -> Node:
        """A linear layer."""
        shape = x.meta["hint"].shape
        name = f"fc{len(self.arrays)}"
        self.arrays[name] = numbers((size, shape[-1]), 5)
        node = self.graph.call_module(name, (x,))
        node.meta["layer"] = Layer(
            nn.Linear, (shape[-1], size), {"bias": False}, {"weight": Weight((name,))}
        )
        return self.describe(node, x.meta["hint"] @ self.arrays[name].T)


Step = Callable[[Graph, Node, Draw], Node]


def shape_of(x: Node) -> tuple[int, ...]:
    return tuple(x.meta["hint"].shape)


def some_axis(x: Node, draw: Draw) -> int:
    return draw(st.integers(0, rank(x) - 1))


def gate(g: Graph, x: Node, draw: Draw) -> Node:
    axes = tuple(sorted(draw(st.sets(st.integers(0, rank(x) - 1), min_size=1))))
    return g(mx.multiply, x, g(mx.mean, x, axes, True))


def pool(g: Graph, x: Node, draw: Draw) -> Node:
    return g(mx.mean, x, some_axis(x, draw)) if rank(x) > 2 else x


def scale(g: Graph, x: Node, draw: Draw) -> Node:
    start = draw(st.integers(0, rank(x) - 1))
    shape = shape_of(x)[start:]
    weight = g.parameter(tuple(draw(st.sampled_from([1, n])) for n in shape))
    return g(mx.add, x, weight)


def permute(g: Graph, x: Node, draw: Draw) -> Node:
    order = tuple(draw(st.permutations(range(rank(x)))))
    return g(mx.transpose, x, order, by_author=draw(st.booleans()))


def tokens(g: Graph, x: Node, draw: Draw) -> Node:
    """An image flattened to tokens, mixed, and an image again."""
    if rank(x) < 4:
        return x
    shape = shape_of(x)
    y = g(mx.flatten, x, 2, rank(x) - 1)
    if draw(st.booleans()):
        y = g(mx.transpose, y, (0, 2, 1), by_author=True)
        y = g(mx.transpose, g(convolution, y), (0, 2, 1), by_author=True)
    return g(mx.reshape, g(mx.softmax, y, draw(st.integers(0, 2))), shape)


def groups(g: Graph, x: Node, draw: Draw) -> Node:
    """The channels in groups, shuffled or normalised by group, and whole again."""
    shape = shape_of(x)
    if rank(x) < 3 or shape[1] not in (4, 6):
        return x
    parts = (shape[0], 2, shape[1] // 2, *shape[2:])
    y = g(mx.reshape, x, parts)
    if draw(st.booleans()):
        y = g(mx.transpose, y, (0, 2, 1, *range(3, len(parts))), by_author=True)
    else:
        y = g(mx.subtract, y, g(mx.mean, y, tuple(range(2, len(parts))), True))
    return g(mx.reshape, y, shape)


def part(g: Graph, x: Node, draw: Draw) -> Node:
    axis = some_axis(x, draw)
    size = shape_of(x)[axis]
    index = draw(st.sampled_from([slice(1, None), slice(None, None, 2), size - 1]))
    if isinstance(index, int) and (size < 2 or rank(x) < 3):
        return x
    key = (*(slice(None),) * axis, index)
    return g(operator.getitem, x, key)


def join(g: Graph, x: Node, draw: Draw) -> Node:
    return g(mx.concatenate, [x, g(mx.tanh, x)], some_axis(x, draw))


STEPS: list[Step] = [
    lambda g, x, draw: g(mx.tanh, x),
    lambda g, x, draw: g(mx.cumsum, x, some_axis(x, draw)),
    lambda g, x, draw: g.convolve(x) if rank(x) > 2 else x,
    lambda g, x, draw: g(reads_all, x),
    gate,
    groups,
    join,
    part,
    permute,
    pool,
    scale,
    tokens,
]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_graphs(data: Any) -> None:
    draw = data.draw
    g = Graph()
    ndim = draw(st.integers(3, 5))
    shape = tuple(draw(st.permutations((2, 3, 4, 5, 6)))[:ndim])
    x = g.convolve(g.input(shape))
    values = [x]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        values.append(step(g, values[-1], draw))
    y = values[-1]
    if draw(st.booleans()) and rank(y) > 2:
        y = g.linear(g(mx.flatten, y, 1, rank(y) - 1))
    returned = [y, draw(st.sampled_from(values))]
    g.graph.output(returned)
    pinned = draw(st.booleans()), draw(st.booleans())
    assert_same(g, Pins(frozenset({"x"} if draw(st.booleans()) else ()), pinned))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.permutations((2, 3, 4, 5, 6)), st.integers(3, 5), st.integers(1, 3))
def test_flattened_before_linear_layers(
    sizes: list[int], ndim: int, count: int
) -> None:
    """The order goes into the weights of all linear layers behind it; no transpose is left."""
    g = Graph()
    x = g(mx.tanh, g(mx.flatten, g.convolve(g.input(tuple(sizes[:ndim]))), 1, ndim - 1))
    g.graph.output([g.linear(x, size) for size in range(2, 2 + count)])
    problem = assert_same(g, Pins(frozenset(), (False,) * count))
    assert not [n for n in problem.graph.nodes if permutation(n) is not None]
    layers = [n.meta["layer"] for n in g.graph.nodes if n.op == "call_module"]
    middle = ("transpose", last(ndim))
    assert all(layer.weights["weight"].steps[1] == middle for layer in layers)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.permutations((2, 3, 4, 5, 6)), st.integers(3, 5), st.data())
def test_parameters(sizes: list[int], ndim: int, data: Any) -> None:
    """A parameter of any rank is transposed in the file, also as a branch of its own."""
    g = Graph()
    shape = tuple(sizes[:ndim])
    x = g.convolve(g.input(shape))
    start = data.draw(st.integers(0, ndim - 1))
    weight = g.parameter(shape[start:])
    if start == 0:
        weight = g(mx.tanh, weight)
    g.graph.output([g.convolve(g(mx.add, x, weight))])
    problem = assert_same(g, Pins(frozenset(), (False,)))
    assert not [n for n in problem.graph.nodes if permutation(n) is not None]


def assert_same(g: Graph, pins: Pins) -> Problem:
    """Rewrite a graph: its outputs are the same, its hints right, and no more bytes are transposed."""
    graph = g.graph
    (output,) = (n for n in graph.nodes if n.op == "output")
    output.meta["origin"] = g.plain
    (x,) = (n.meta["hint"] for n in graph.nodes if n.op == "placeholder")
    naive = _transposed(graph)
    fold_keepdims(graph, CAPTURED)
    expected = MLXInterpreter(Lowered(graph), g.arrays).run(x)
    problem = Problem(graph, CAPTURED, pins)
    reported = Rewriter(problem).run()
    graph.lint()
    (given_as,) = (n.meta.get("perm") for n in graph.nodes if n.op == "placeholder")
    assert given_as is None or "x" not in pins.inputs
    stored = x if given_as is None else x.transpose(given_as)
    values = _Recording(Lowered(graph), g.arrays)
    found = values.run(stored)
    for want, have, perm, pinned in zip(
        expected, found, output.meta["perms"], pins.outputs, strict=True
    ):
        assert not (pinned and perm is not None)
        want = want if perm is None else want.transpose(perm)
        assert have.shape == want.shape
        np.testing.assert_allclose(np.array(have), np.array(want), rtol=1e-4, atol=1e-4)
    for node, shape in values.shapes.items():
        assert tuple(node.meta["hint"].shape) == shape, node.format_node()
    assert sum(t.bytes for t in reported) <= naive
    return problem


def _transposed(graph: torch.fx.Graph) -> int:
    """The bytes of the transposes that the author did not write."""
    return sum(
        nbytes(n)
        for n in graph.nodes
        if permutation(n) is not None and not by_author(n)
    )


class _Recording(MLXInterpreter):
    """An interpreter that keeps the shapes of what it computes."""

    def run(self, *args: Any) -> Any:
        self.shapes: dict[Node, tuple[int, ...]] = {}
        return super().run(*args)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, mx.array):
            self.shapes[n] = tuple(value.shape)
        return value
