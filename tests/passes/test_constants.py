"""What is computed once, and under which name it is stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.aten import check, ops
from torch2mlx.passes import run
from torch2mlx.passes.constants import fold_constants
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.simplify import simplify

PASSES = (simplify, fold_constants, drop_dead_code)


class Rotary(nn.Module):
    """Frequencies computed from a formula, and from a buffer."""

    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("scales", torch.rand(4) + 1, persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frequencies = 10000.0 ** (-torch.arange(0, 8, 2).float() / 8)
        powers = self.scales.log() * 2
        return x * frequencies + powers[None]


class Model(nn.Module):
    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.rotary = Rotary(persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rotary(x) * 2


def test_names() -> None:
    model = Model()
    captured = check(PASSES, model, (torch.randn(3, 4),), (torch.randn(5, 4),))
    assert ops(captured) == {"mul": 2, "add": 1}
    assert set(captured.weights.values()) == {"rotary.frequencies", "rotary.constant"}
    assert captured.tensors["rotary.frequencies"].shape == (4,)
    assert not captured.trainable
    assert "rotary.frequencies" not in captured.persistent
    assert [decision.what for decision in captured.decisions] == [
        "rotary.frequencies",
        "rotary.constant",
    ]


def test_what_may_change_is_no_constant() -> None:
    captured = check(PASSES, Model(persistent=True), (torch.randn(3, 4),))
    assert set(captured.weights.values()) == {"rotary.frequencies", "rotary.scales"}
    assert ops(captured)["log"] == 1

    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight.exp()

    captured = check(PASSES, Trained(), (torch.randn(3, 4),))
    assert ops(captured)["exp"] == 1


def test_random_numbers_are_no_constants() -> None:
    from torch2mlx.capture import capture

    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(4).exp()

    captured = capture(Noise().eval(), (torch.randn(3, 4),))
    run(captured)
    assert {"rand", "exp"} <= set(ops(captured))


@pytest.mark.parametrize("size", [8, 2048])
def test_large_results_of_small_formulas_stay(size: int) -> None:
    def function(x: Any) -> Any:
        i = torch.arange(size)
        return (
            x * ((i[:, None] - i[None]).abs() + 1).rsqrt()[:4, :4].sum(),
            torch.exp(-(i[:, None] - i[None]).abs().float()) * x[0, 0],
        )

    captured = check(PASSES, function, (torch.randn(3, 4),))
    stored = [captured.tensors[key].numel() for key in captured.weights.values()]
    assert max(stored, default=0) == (64 if size == 8 else 0)
    assert ops(captured)["abs"] == (0 if size == 8 else 1)


def test_formulas_stay_formulas() -> None:
    def function(x: Any) -> Any:
        mask = torch.ones(4, 4).tril()
        shifted = (torch.arange(4) * 2 + 2)[None] // 2
        return x * mask[None], x.sum() + shifted

    captured = check(PASSES, function, (torch.randn(3, 4, 4),))
    assert not captured.weights
    assert {"ones", "tril", "arange"} <= set(ops(captured))
    assert not {"floor_divide", "div"} & set(ops(captured))


def test_another_view_of_a_weight_is_not_stored() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(4, 3), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.table.t()[None]

    captured = check(PASSES, Turned(), (torch.randn(2, 5, 3),))
    assert list(captured.weights.values()) == ["table"]
    assert len(captured.tensors) == 1
