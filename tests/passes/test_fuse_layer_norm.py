"""Layer norms that are written out become the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused, left_alone
from torch2mlx.passes.rewrite import arguments


class Norm(torch.nn.Module):
    """`form` of an input, a weight and a bias."""

    def __init__(self, form: Callable[..., torch.Tensor], size: int = 8):
        super().__init__()
        self.form = form
        self.weight = torch.nn.Parameter(torch.rand(size))
        self.bias = torch.nn.Parameter(torch.rand(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.form(x, self.weight, self.bias)


def variance(x: Any, w: Any, b: Any) -> Any:
    mean = x.mean(-1, keepdim=True)
    spread = (x - mean).pow(2).mean(-1, keepdim=True)
    return w * ((x - mean) / torch.sqrt(spread + 1e-6)) + b


def shared(x: Any, w: Any, b: Any) -> Any:
    x = x - x.mean(2, keepdim=True)
    return b + x * torch.rsqrt((x * x).mean(2, keepdim=True) + 1e-6) * w


def var(x: Any, w: Any, b: Any) -> Any:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * w + b


FORMS = {"variance": variance, "shared": shared, "var": var}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    model, others = Norm(FORMS[form]), (torch.randn(4, 5, 8),)
    captured = fused("layer_norm", model, (torch.randn(2, 3, 8),), others)
    assert ops(captured) == {"layer_norm": 1}
    (node,) = (n for n in captured.graph.nodes if n.op == "call_function")
    assert arguments(node)["eps"] == 1e-6
    assert [kind for kind, _ in decisions(captured, "layer_norm")] == ["fused"]
    run_lowered(model, (torch.randn(2, 3, 8),), others)


def test_no_weight() -> None:
    def function(x: Any) -> Any:
        return shared(x, 1, 0)

    captured = fused("layer_norm", function, (torch.randn(2, 3, 8),), dynamic=False)
    assert ops(captured)["layer_norm"] == 1
    run_lowered(function, (torch.randn(2, 3, 8),), dynamic=False)


def centred(x: Any, axis: int = -1) -> Any:
    return x - x.mean(axis, keepdim=True)


NEAR: dict[str, Callable[[Any], Any]] = {
    "axis": lambda x: centred(x, 1) / (x.var(1, False, True) + 1e-6).sqrt(),
    "mean": lambda x: centred(x, 1) / (x.var(-1, False, True) + 1e-6).sqrt(),
    "unbiased": lambda x: centred(x) / (x.var(-1, keepdim=True) + 1e-6).sqrt(),
    "no root": lambda x: centred(x) / (x.var(-1, False, True) + 1e-6),
    "outside": lambda x: centred(x) / (x.var(-1, False, True).sqrt() + 1e-6),
    "another": lambda x: centred(x) / ((x * 2).var(-1, False, True) + 1e-6).sqrt(),
    "not centred": lambda x: centred(x)
    * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    left_alone("layer_norm", "layer_norm", NEAR[near], torch.randn(2, 3, 8))


def test_statistics_that_are_returned() -> None:
    def function(x: Any) -> Any:
        spread = x.var(-1, unbiased=False, keepdim=True)
        return centred(x) / (spread + 1e-6).sqrt(), spread

    args = (torch.randn(2, 3, 8),)
    captured = fused("layer_norm", function, args, tolerance=0.0, dynamic=False)
    assert not ops(captured)["layer_norm"]
    assert decisions(captured, "layer_norm") == [
        ("declined", "`var` in it is used elsewhere too")
    ]
