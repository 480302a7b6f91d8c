"""Recurrent cells and computed recurrent weights against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered
from torch2mlx.errors import UnsupportedError

CELLS: dict[str, Any] = {
    "lstm": lambda bias: nn.LSTMCell(3, 4, bias),
    "gru": lambda bias: nn.GRUCell(3, 4, bias),
    "tanh": lambda bias: nn.RNNCell(3, 4, bias),
    "relu": lambda bias: nn.RNNCell(3, 4, bias, "relu"),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", list(CELLS))
def test_cells(name: str, bias: bool) -> None:
    cell = CELLS[name](bias)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    if name == "lstm":
        run_lowered(cell, (x, (h, torch.randn(2, 4))))
    else:
        run_lowered(cell, (x, h))


def test_weights_that_are_computed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4, bidirectional=True)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
            weights = [w * 0.5 for w in self.rnn._flat_weights]
            return torch.gru(x, h, weights, True, 1, 0.0, False, True, False)

    args = (torch.randn(5, 2, 3), torch.randn(2, 2, 4))
    run_lowered(Scaled(), args)
    assert not lowered(Scaled(), args).layers


def test_dropout_between_layers_in_training_is_refused() -> None:
    rnn = nn.GRU(3, 4, num_layers=2, dropout=0.5)
    weights = list(rnn._flat_weights)

    def function(x: torch.Tensor, h: torch.Tensor) -> Any:
        return torch.gru(
            x, h, [w.detach() for w in weights], True, 2, 0.5, True, False, False
        )

    with pytest.raises(UnsupportedError, match="train"):
        lowered(function, (torch.randn(5, 2, 3), torch.randn(2, 2, 4)))
