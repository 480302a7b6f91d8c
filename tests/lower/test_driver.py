"""What the walk over the captured graph collects, refuses and checks."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn
import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered
from torch2mlx.errors import UnsupportedError
from torch2mlx.lower import facade, registry
from torch2mlx.lower.facade import Refuse

aten = torch.ops.aten
X = torch.randn(3, 4)


def test_all_refusals_are_reported_at_once() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        a = torch.geqrf(x)[0].sum()
        b = torch.poisson(x.abs()).sum()
        return a + b

    with pytest.raises(UnsupportedError) as raised:
        lowered(function, (X,))
    ops = [entry.op for entry in raised.value.entries]
    assert ops == ["aten.geqrf.default", "aten.poisson.default"]
    assert "torch.geqrf(x)" in raised.value.entries[0].source_line


def test_what_mlx_refuses_names_the_operator() -> None:
    numbers = torch.ones(1, 2, 3, dtype=torch.int64)
    with pytest.raises(UnsupportedError, match=r"aten\.conv1d\.default[\s\S]*floating"):
        lowered(lambda x: torch.conv1d(x, x), (numbers,))


def test_a_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = registry.Lowering(lambda x: x[None], ("x",))
    monkeypatch.setitem(registry.OPS, aten.relu.default, wrong)
    with pytest.raises(
        UnsupportedError, match=r"shape \(1, 3, 4\) where PyTorch has \(3, 4\)"
    ):
        lowered(torch.relu, (X,))


def test_a_wrong_dtype_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    halved = registry.Lowering(lambda x: facade.mx.zeros((3, 4), mx.float16), ("x",))
    monkeypatch.setitem(registry.OPS, aten.relu.default, halved)
    graph = lowered(torch.relu, (X,)).graph
    dtypes = [n.meta["hint"].dtype for n in graph.nodes if n.op == "call_function"]
    assert dtypes == [mx.float16, mx.float32]


def test_arguments_that_are_not_taken_are_refused_by_name() -> None:
    entry = registry.Lowering(lambda x, other: x, ("x", "other"))
    with pytest.raises(Refuse, match="`alpha`=2"):
        registry.bind(aten.add.Tensor, entry, (1, 0), {"alpha": 2})
    assert registry.bind(aten.add.Tensor, entry, (1, 0), {"alpha": 1}) == {
        "x": 1,
        "other": 0,
    }


def test_declarations_are_checked() -> None:
    with pytest.raises(TypeError, match="has no arguments"):
        registry.lowers(aten.dequantize.self)(lambda x, nothing: x)
    with pytest.raises(TypeError, match="mapped twice"):
        registry.lowers(aten.relu.default)(lambda x: x)


def test_every_declared_parameter_has_a_value() -> None:
    """`bind` gives a lowering all its parameters whenever the call fits the schema."""
    for table in (registry.OPS, registry.LAYERS):
        for overload, entry in table.items():
            names = {registry.schema_name(a.name) for a in overload._schema.arguments}
            assert set(entry.parameters) <= names, overload


def test_weights_are_attributes_and_their_transposes_are_plan_steps() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    graph = lowered(Model(), (torch.randn(2, 3, 5),)).graph
    (node,) = (n for n in graph.nodes if n.op == "call_module")
    layer = node.meta["layer"]
    assert layer.cls is mlx.nn.Conv1d
    assert node.target == "conv"
    assert layer.weights["weight"].sources == ("conv.weight",)
    assert layer.weights["weight"].steps == (("transpose", (0, 2, 1)),)


def test_sizes_are_exact_at_other_inputs() -> None:
    def function(x: torch.Tensor) -> Any:
        rows = x.shape[0] * 2 - 1
        return torch.zeros(rows, x.shape[1] // 2) + rows, x.shape[0]

    run_lowered(function, (X,), (torch.randn(5, 7),))
