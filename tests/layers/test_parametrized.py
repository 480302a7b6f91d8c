"""Weights that are computed from others: parametrisations and normalised weights, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations as new
from torch.nn.utils import parametrize, spectral_norm, weight_norm

from tests.program import check


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).mT


def symmetric(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


MATRICES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": weight_norm,
    "weight_norm of all": lambda layer: weight_norm(layer, dim=None),
    "spectral_norm": spectral_norm,
    "new weight_norm": new.weight_norm,
    "new spectral_norm": new.spectral_norm,
    "matrix_exp": new.orthogonal,
    "cayley": lambda layer: new.orthogonal(layer, orthogonal_map="cayley"),
    "householder": lambda layer: new.orthogonal(layer, orthogonal_map="householder"),
    "symmetric": symmetric,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("name", list(MATRICES))
def test_linear(name: str) -> None:
    model = nn.Sequential(MATRICES[name](nn.Linear(4, 4)), nn.Linear(4, 3))
    check(model, (torch.randn(2, 4),))


@pytest.mark.parametrize("norm", [new.weight_norm, new.spectral_norm])
def test_convolutions(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), norm(nn.ConvTranspose2d(4, 2, 3)))
    check(model, (torch.randn(2, 3, 6, 5),))


def test_recurrent_weight() -> None:
    model = new.weight_norm(nn.GRU(3, 4), "weight_hh_l0")
    check(model, (torch.randn(5, 2, 3),))
