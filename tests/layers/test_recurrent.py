"""Recurrent layers against PyTorch, with every constructor argument changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered
from tests.program import check

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers(cls: type, options: dict[str, Any]) -> None:
    model = cls(3, 4, **options)
    x = torch.randn(5, 5, 3)
    run_lowered(model, (x,), (torch.randn(2, 7, 3),))
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    assert lowered(model, (x,)).layers == {cls.__name__: count}


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (nn.LSTM, {}),
        (nn.LSTM, {"proj_size": 2, "bidirectional": True}),
        (nn.GRU, {"bidirectional": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
    ],
)
def test_without_a_batch(cls: type, options: dict[str, Any], batch_first: bool) -> None:
    model = cls(3, 4, num_layers=2, batch_first=batch_first, **options)
    x = torch.randn(5, 3)
    run_lowered(model, (x,), (torch.randn(6, 3),))
    runs = 4 if options.get("bidirectional") else 2
    h = torch.randn(runs, options.get("proj_size", 4))
    state = (h, torch.randn(runs, 4)) if cls is nn.LSTM else h
    run_lowered(model, (x, state))


def test_initial_states() -> None:
    x, h, c = torch.randn(5, 2, 3), torch.randn(2, 2, 4), torch.randn(2, 2, 4)

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, num_layers=2)
            self.gru = nn.GRU(3, 4, num_layers=2)

        def forward(
            self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
        ) -> tuple[Any, ...]:
            return self.lstm(x, (h, c)), self.gru(x, h)

    run_lowered(Stateful(), (x, h, c), dynamic=False)
    assert lowered(Stateful(), (x, h, c), dynamic=False).layers == {
        "LSTM": 2,
        "GRU": 2,
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_projection_and_relu_are_no_layers() -> None:
    x = torch.randn(5, 2, 3)
    for model in (
        nn.LSTM(3, 4, num_layers=2, proj_size=2, bidirectional=True),
        nn.RNN(3, 4, nonlinearity="relu", bidirectional=True),
    ):
        run_lowered(model, (x,), dynamic=False)
        assert not lowered(model, (x,), dynamic=False).layers


def test_paths_of_several_layers() -> None:
    model = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    graph = lowered(model, (torch.randn(5, 2, 3),), dynamic=False).graph
    paths = [node.target for node in graph.nodes if node.op == "call_module"]
    assert paths == ["0", "1", "2", "3"]


def test_cells() -> None:
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    for bias in (True, False):
        run_lowered(nn.GRUCell(3, 4, bias=bias), (x, h))
        run_lowered(nn.RNNCell(3, 4, bias=bias), (x, h))
        run_lowered(nn.RNNCell(3, 4, bias=bias, nonlinearity="relu"), (x, h))
        cell = nn.LSTMCell(3, 4, bias=bias)
        run_lowered(lambda x, h, c, cell=cell: cell(x, (h, c)), (x, h, c))


class Last(nn.Module):
    """A classifier by the last states of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (h, _) = self.lstm(x)
        return torch.cat([h[-2], h[-1]], dim=1)


def test_states_are_not_stacked_to_be_picked() -> None:
    program = check(Last(), (torch.randn(2, 5, 3),), (torch.randn(3, 6, 3),))
    assert "mx.stack" not in program.source


def test_nested_initial_states() -> None:
    model = nn.LSTM(3, 4, num_layers=2)
    states = (torch.randn(2, 2, 4), torch.randn(2, 2, 4))
    program = check(model, (torch.randn(5, 2, 3), states))
    assert "layer(input, hx[0][i], hx[1][i])" in program.source
