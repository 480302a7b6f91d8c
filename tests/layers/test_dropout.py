"""Dropout in evaluation, and dropout that also drops then."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.lowering import lowered, run_lowered


@pytest.mark.parametrize(
    ("model", "shape", "layer"),
    [
        (nn.Dropout(0.3), (3, 4), "Dropout"),
        (nn.Dropout2d(0.3), (2, 3, 4, 5), "Dropout2d"),
        (nn.Dropout3d(0.3), (2, 3, 4, 5, 2), "Dropout3d"),
    ],
)
def test_layers(model: nn.Module, shape: tuple[int, ...], layer: str) -> None:
    x = torch.randn(shape)
    run_lowered(model, (x,))
    program = lowered(model, (x,))
    assert program.layers == {layer: 1}
    (node,) = (n for n in program.graph.nodes if n.op == "call_module")
    assert node.meta["layer"].args == (0.3,)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_never_or_always_dropping_is_no_layer(p: float) -> None:
    x = torch.randn(3, 4)
    run_lowered(nn.Dropout(p), (x,))
    assert not lowered(nn.Dropout(p), (x,)).layers


def test_dropping_in_evaluation_too() -> None:
    from tests.lowering import to_mlx
    from torch2mlx.lower.interpret import MLXInterpreter

    x = torch.ones(100, 100)
    program = lowered(lambda t: functional.dropout(t, 0.25, training=True), (x,))
    assert not program.layers
    (y,) = MLXInterpreter(program, {}).run(to_mlx(x))
    values = np.array(y)
    assert set(np.unique(values).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert 0.2 < (values == 0).mean() < 0.3
