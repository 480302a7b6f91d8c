"""How models are called: a model that is a layer itself, variable arguments, arguments of several arrays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.program import check


@pytest.mark.parametrize(
    ("layer", "sizes", "keys"),
    [
        (nn.Linear(4, 3), (2, 4), {"linear.weight": "weight", "linear.bias": "bias"}),
        (
            nn.Conv2d(4, 5, 3, bias=False),
            (2, 4, 6, 7),
            {"conv2d.weight": "weight"},
        ),
        (nn.PReLU(), (2, 4), {"weight": "weight"}),
    ],
)
def test_a_layer_is_a_model(
    layer: nn.Module, sizes: tuple[int, ...], keys: dict[str, str]
) -> None:
    program = check(layer, (torch.randn(sizes),), (torch.randn(5, *sizes[1:]),))
    assert {e.key: e.sources[0] for e in program.plan.entries} == keys


class Variable(nn.Module):
    def forward(self, x: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        return x - more[0] * more[1][0] + named["bias"]


def test_variable_arguments_are_arguments_of_their_own() -> None:
    def inputs(rows: int) -> tuple[Any, ...]:
        x = torch.randn(3, rows, 4)
        return x[0], x[1], [x[2]]

    bias = {"bias": torch.randn(4)}
    program = check(Variable(), inputs(2), inputs(3), kwargs=bias)
    assert "x: mx.array, more_0: mx.array, more_1: list[mx.array], bias" in " ".join(
        program.source.split()
    )


class Parts(nn.Module):
    """Assigns to the name of an argument that still holds arrays to be read."""

    def forward(
        self, x: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        hx_first = hx[0].unsqueeze(1).tanh()
        x = x + hx_first.sum() * hx_first.mean()
        return x * hx[1].unsqueeze(1).tanh().sum() * hx[1].mean()


def test_an_argument_of_several_arrays_lives_until_all_are_read() -> None:
    pair = torch.randn(2, 4), torch.randn(2, 4)
    check(Parts(), (torch.randn(3), pair), (torch.randn(5), pair[::-1]))
    lstm = nn.LSTM(2, 3, num_layers=2)
    state = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    check(lstm, (torch.randn(5, 4, 2), state), (torch.randn(6, 4, 2), state))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 1,),
        lambda x: x.max(dim=1),
        lambda x: x.split(100),
        lambda x: [x.sort(descending=True)],
    ],
)
def test_what_is_returned_keeps_its_structure(function: Any) -> None:
    class Returns(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    check(Returns(), (torch.randn(2, 4),), (torch.randn(3, 4),))


def test_operators_between_the_layers_of_a_bare_sequential() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    check(model, (torch.randn(2, 3, 8, 8),), (torch.randn(3, 3, 8, 8),))


class Defaults(nn.Module):
    def forward(
        self, x: torch.Tensor, y: Any = None, *more: torch.Tensor, scale: float = 2.0
    ) -> torch.Tensor:
        return (x + y + more[0]) * scale


def test_defaults_behind_variable_arguments() -> None:
    check(Defaults(), tuple(torch.randn(3, 2, 4)), tuple(torch.randn(3, 5, 4)))
