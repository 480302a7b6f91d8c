"""Softmax in float32 between arrays of half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

FORMS: dict[str, Callable[[Any], Any]] = {
    "dtype": lambda x: functional.softmax(x, -1, dtype=F32).to(x.dtype),
    "cast": lambda x: x.float().softmax(1).type_as(x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [F16, BF16])
def test_forms(form: str, dtype: torch.dtype) -> None:
    x, other = 5 * torch.randn(2, 3, 40), 5 * torch.randn(4, 5, 7)
    args, others = (x.to(dtype),), (other.to(dtype),)
    captured = fused("softmax", FORMS[form], args, others, tolerance=8e-3)
    assert ops(captured) == {"softmax": 1}
    run_lowered(FORMS[form], args, others, tolerance=8e-3)


def test_many_small_weights() -> None:
    """Their sum in half precision would stop growing."""
    function = FORMS["dtype"]
    x = torch.zeros(1, 70_000, dtype=F16)
    fused("softmax", lambda x: function(x) * 6e4, (x,), tolerance=1e-2)
    run_lowered(lambda x: function(x) * 6e4, (x,), tolerance=1e-2)


NEAR: dict[str, Callable[[Any], Any]] = {
    "float64": lambda x: functional.softmax(x, -1, dtype=F64).to(x.dtype),
    "other dtype": lambda x: functional.softmax(x, -1, dtype=F32).to(BF16),
    "used before": lambda x: (
        (y := functional.softmax(x, -1, dtype=F32)),
        y.to(x.dtype),
    ),
    "scaled before": lambda x: (functional.softmax(x, -1, dtype=F32) * 3).to(x.dtype),
    "of what is wider": lambda x: (x.float() * 3).softmax(-1).to(x.dtype),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    x = torch.randn(2, 3, 8).to(F16)
    captured = fused("softmax", NEAR[near], (x,))
    assert "fused" not in [kind for kind, _ in decisions(captured, "softmax")]
