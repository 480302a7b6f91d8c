"""RMS norms that are written out become the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused, left_alone
from torch2mlx.passes.rewrite import arguments

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


class Norm(torch.nn.Module):
    """As language models write it; `plus` is added to the weight, which comes before or after rounding."""

    def __init__(
        self, size: int = 8, plus: float = 0.0, late: bool = False, eps: float = 1e-6
    ):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(size) + 0.5)
        self.plus, self.late, self.eps = plus, late, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.late:
            return (wide * (self.plus + self.weight.float())).to(x.dtype)
        return self.weight * wide.to(x.dtype)


class Weighted(torch.nn.Module):
    """`form` of an input and a weight."""

    def __init__(self, form: Callable[..., torch.Tensor], size: int = 8):
        super().__init__()
        self.form, self.weight = form, torch.nn.Parameter(torch.rand(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.form(x, self.weight)


FORMS: dict[str, Callable[..., torch.Tensor]] = {
    "rsqrt": lambda x, w: x * torch.rsqrt((x * x).mean(2, keepdim=True) + 1e-5) * w,
    "sqrt": lambda x, w: x / torch.sqrt(x.square().mean(-1, True) + 1e-5) * w,
    "power": lambda x, w: w * (x * (x.pow(2).mean((-1,), True) + 1e-5) ** -0.5),
    "reciprocal": lambda x, w: w * (x * (1 / (x.pow(2).mean(-1, True) + 1e-5).sqrt())),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    model = Weighted(FORMS[form])
    x, other = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
    captured = fused("rms_norm", model, (x,), (other,))
    assert ops(captured) == {"rms_norm": 1}
    (node,) = (n for n in captured.graph.nodes if n.op == "call_function")
    assert arguments(node)["eps"] == 1e-5
    assert [kind for kind, _ in decisions(captured, "rms_norm")] == ["fused"]


@pytest.mark.parametrize(
    ("dtype", "late", "expected"),
    [
        (F32, False, {"rms_norm": 1}),
        (BF16, False, {"rms_norm": 1}),
        (F16, True, {"to": 3, "rms_norm": 1}),
        (F32, True, {"rms_norm": 1}),
    ],
)
def test_precision(dtype: torch.dtype, late: bool, expected: dict[str, int]) -> None:
    model, x = Norm(late=late).to(dtype), torch.randn(2, 3, 8).to(dtype)
    tolerance = 1e-6 if dtype == F32 else 2e-2
    captured = fused("rms_norm", model, (x,), tolerance=tolerance)
    found = ops(captured)
    assert {k: v for k, v in found.items() if k != "add"} == expected
    run_lowered(model, (x,), tolerance=tolerance)


def test_weight_plus_one() -> None:
    captured = fused("rms_norm", Norm(plus=1.0, late=True), (torch.randn(2, 3, 8),))
    assert ops(captured) == {"add": 1, "rms_norm": 1}
    run_lowered(Norm(plus=1.0, late=True), (torch.randn(2, 3, 8),))


def test_no_weight() -> None:
    def function(x: Any) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    args = (torch.randn(2, 8),)
    captured = fused("rms_norm", function, args, dynamic=False)
    assert ops(captured) == {"rms_norm": 1}
    run_lowered(function, args, dynamic=False)


def test_another_weight_stays() -> None:
    model, args = Weighted(FORMS["power"], 1), (torch.randn(2, 3, 8),)
    captured = fused("rms_norm", model, args, dynamic=False)
    assert ops(captured) == {"rms_norm": 1, "mul": 1}


NEAR: dict[str, Callable[..., Any]] = {
    "axis": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
    "axes": lambda x: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + 1e-6),
    "power": lambda x: x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-6),
    "no epsilon": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
    "sum": lambda x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6),
    "alpha": lambda x: x * torch.rsqrt(torch.add(x.pow(2).mean(-1, True), 1, alpha=2)),
    "epsilon": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, True) + x.abs().mean()),
    "another": lambda x: (x + 1) * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6),
    "negative": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, True) + -1e-6),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    left_alone("rms_norm", "rms_norm", NEAR[near], torch.randn(2, 3, 8))


def test_a_part_that_is_used_elsewhere() -> None:
    def function(x: Any) -> Any:
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * inverse, inverse

    args = (torch.randn(2, 8),)
    captured = fused("rms_norm", function, args, tolerance=0.0, dynamic=False)
    assert not ops(captured)["rms_norm"]
    ((kind, why),) = decisions(captured, "rms_norm")
    assert (kind, why) == ("declined", "`rsqrt` in it is used elsewhere too")
