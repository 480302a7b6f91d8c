"""Linear, bilinear and embedding layers against PyTorch."""

from __future__ import annotations

import torch
from torch import nn

from tests.lowering import lowered, run_lowered


def test_linear() -> None:
    for bias in (True, False):
        model = nn.Linear(4, 6, bias=bias)
        x = torch.randn(3, 5, 4)
        run_lowered(model, (x,), (torch.randn(2, 7, 4),))
        assert lowered(model, (x,)).layers == {"Linear": 1}


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_addmm_of_weights_is_linear() -> None:
    model = Conv1D()
    x = torch.randn(3, 4)
    run_lowered(model, (x,), (torch.randn(5, 4),))
    assert lowered(model, (x,)).layers == {"Linear": 1}


def test_addmm_of_computed_matrices_is_no_layer() -> None:
    args = (torch.randn(6), torch.randn(3, 4), torch.randn(4, 6))
    run_lowered(torch.addmm, args)
    run_lowered(lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), args)
    assert not lowered(torch.addmm, args).layers


def test_bilinear() -> None:
    for bias in (True, False):
        model = nn.Bilinear(3, 4, 5, bias=bias)
        args = (torch.randn(2, 7, 3), torch.randn(2, 7, 4))
        run_lowered(model, args)
        assert lowered(model, args).layers == {"Bilinear": 1}


def test_embedding() -> None:
    for padding in (None, 2):
        model = nn.Embedding(7, 3, padding_idx=padding)
        ids = torch.randint(0, 7, (2, 5))
        run_lowered(model, (ids,), (torch.randint(0, 7, (3, 4)),))
        assert lowered(model, (ids,)).layers == {"Embedding": 1}


def test_weights_of_a_module_that_does_more_are_no_layer() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.weight * 2)

    run_lowered(Scaled(), (torch.randn(3, 4),))
    assert not lowered(Scaled(), (torch.randn(3, 4),)).layers
