"""The lint for what Metal cannot do."""

from __future__ import annotations

import mlx.core as mx
import torch
import torch.fx

from tests.lowering import lowered
from torch2mlx.lower.metal import metal_problems

X = torch.zeros(4, 5)
I = torch.tensor([0, 2])


def test_scatter_of_wide_integers() -> None:
    graph = lowered(lambda x, i: x.index_add(0, i, x[:2]), (X.long(), I)).graph
    (problem,) = metal_problems(graph)
    assert "64-bit" in problem


def test_what_metal_can_do() -> None:
    for x in (X, X.int()):
        graph = lowered(lambda x, i: x.index_add(0, i, x[:2]), (x, I)).graph
        assert not metal_problems(graph)
    graph = lowered(lambda x: x.slice_scatter(x[:2], 0, 1, 3), (X.long(),)).graph
    assert not metal_problems(graph)
    assert not metal_problems(lowered(lambda x: x.double() + 1.0, (X,)).graph)


def test_float64() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["hint"] = mx.zeros((2,))
    y = graph.call_function(mx.full, ((2,), 1.0), {"dtype": mx.float64})
    y.meta["hint"] = mx.zeros((2,))
    assert [p.split(":")[0] for p in metal_problems(graph)] == [y.name]
