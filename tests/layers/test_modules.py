"""Layers for module classes, by `register_layer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import torch2mlx
from tests.program import check
from torch2mlx.extend import Decline, nn, register_layer
from torch2mlx.lower.registry import MODULES


class Norm(torch.nn.Module):
    """An RMS norm with an argument that the layer has not."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.rand(4))
        self.eps = 1e-3

    def forward(self, x: torch.Tensor, power: int = 2) -> torch.Tensor:
        size = x.abs().pow(power).mean(-1, keepdim=True) + self.eps
        return x / size.pow(1 / power) * self.gain


class Net(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        self.norm = Norm()
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.fc(x), **self.options)


def rms_norm(module: Any, x: Any) -> Any:
    norm = nn.RMSNorm(module.gain.shape[0], eps=module.eps)
    norm.weight = module.gain
    return norm(x)


@pytest.fixture
def mapped() -> Iterator[Callable[[Any], Any]]:
    """Maps `Norm`, and forgets it afterwards."""
    yield register_layer(Norm)
    MODULES.pop(Norm, None)


X = (torch.randn(2, 4),)


def test_a_module_becomes_a_layer(mapped: Callable[[Any], Any]) -> None:
    mapped(rms_norm)
    model = Net()
    program = check(model, X, (torch.randn(5, 4),))
    assert "self.norm = nn.RMSNorm(4, eps=0.001)" in program.source
    assert [e.sources for e in program.plan.entries if e.key == "norm.weight"] == [
        ("norm.gain",)
    ]
    assert "forward" not in vars(model.norm)


def test_a_module_with_a_forward_of_its_own_is_no_layer(
    mapped: Callable[[Any], Any],
) -> None:
    mapped(rms_norm)
    model = Net()
    own = model.norm.forward = torch.nn.functional.relu
    program = check(model, X, (torch.randn(5, 4),))
    assert "RMSNorm" not in program.source
    assert model.norm.forward is own


def declines(module: Any, x: Any) -> Any:
    raise Decline("of no such size")


@pytest.mark.parametrize(
    ("lowering", "options", "why"),
    [
        (rms_norm, {"power": 1}, "Norm is mapped to fails: .*'power'"),
        (declines, {}, "Norm is mapped to declines: of no such size"),
        (lambda module, x: (x, x), {}, "gives 2 arrays where PyTorch gives 1"),
        (lambda module, x: x[0], {}, r"gives shape \(4,\) where PyTorch has \(2, 4\)"),
    ],
)
@pytest.mark.parametrize("stubs", [False, True])
def test_what_the_layer_cannot_do_is_refused(
    mapped: Callable[[Any], Any],
    lowering: Any,
    options: dict[str, int],
    why: str,
    stubs: bool,
) -> None:
    mapped(lowering)
    with pytest.raises(torch2mlx.UnsupportedError, match=why):
        torch2mlx.compile(Net(**options), X, stubs=stubs)


def test_a_class_is_mapped_once(mapped: Callable[[Any], Any]) -> None:
    mapped(rms_norm)
    with pytest.raises(TypeError, match="Norm is mapped twice"):
        register_layer(Norm)(rms_norm)
