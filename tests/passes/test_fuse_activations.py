"""Activations that are written out become the function that they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused, left_alone
from torch2mlx.passes.rewrite import arguments

A = math.sqrt(2 / math.pi)
FORMS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "erf": ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2.0)))),
    "erf grouped": ("gelu", lambda x: 0.5 * (x * (torch.erf(x * 0.5**0.5) + 1.0))),
    "erf halved": ("gelu", lambda x: x * (torch.erf(x / 1.4142135623731) + 1) / 2),
    "tanh": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(A * (x + 0.044715 * torch.pow(x, 3)))),
    ),
    "tanh products": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(A * (x + 0.044715 * x * x * x))),
    ),
    "tanh factored": (
        "gelu",
        lambda x: 0.5
        * x
        * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
    ),
    "quick": ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
    "silu": ("silu", lambda x: torch.sigmoid(x) * x),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    name, function = FORMS[form]
    captured = fused(name, function, (torch.randn(2, 3),), (torch.randn(5, 4),))
    assert ops(captured) == {name: 1}
    assert [kind for kind, _ in decisions(captured, name)] == ["fused"]
    if name == "gelu":
        (node,) = (n for n in captured.graph.nodes if n.op == "call_function")
        kind = "tanh" if "tanh" in form else "none"
        assert arguments(node)["approximate"] == kind
    run_lowered(function, (torch.randn(4, 5),))


NEAR: dict[str, tuple[str, Callable[..., Any]]] = {
    "scale": ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 1.5))),
    "half": ("gelu", lambda x: x * 0.6 * (1 + torch.erf(x / math.sqrt(2)))),
    "one": ("gelu", lambda x: x * 0.5 * (2 + torch.erf(x / math.sqrt(2)))),
    "minus": ("gelu", lambda x: x * 0.5 * (1 - torch.erf(x / math.sqrt(2)))),
    "other": ("gelu", lambda x: (x + 1) * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
    "cubic": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(A * (x + 0.0447 * x**3))),
    ),
    "power": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(A * (x + 0.044715 * x**2))),
    ),
    "quick": ("quick_gelu", lambda x: x * torch.sigmoid(1.7 * x)),
    "silu": ("silu", lambda x: x * torch.sigmoid(-x)),
    "other silu": ("silu", lambda x: x.abs() * torch.sigmoid(x)),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    name, function = NEAR[near]
    left_alone(name, name, function, torch.randn(2, 3))


ALMOST: dict[str, tuple[str, Callable[..., Any], str]] = {
    "short": (
        "gelu",
        lambda x: x * 0.5 * (1 + torch.erf(x * 0.7071)),
        "its number 0.7071 is not 0.707106781",
    ),
    "cubic": (*NEAR["cubic"], "its number 0.0447 is not 0.044715"),
    "quick": (*NEAR["quick"], "its number 1.7 is not 1.702"),
}


@pytest.mark.parametrize("name", ALMOST)
def test_a_number_that_is_nearly_right_is_told(name: str) -> None:
    fusion, function, why = ALMOST[name]
    captured = fused(fusion, function, (torch.randn(2, 3),), tolerance=0.0)
    assert decisions(captured, fusion) == [("declined", why)]


def test_a_gate_that_is_used_elsewhere() -> None:
    def function(x: Any) -> Any:
        gate = torch.sigmoid(x)
        return x * gate, gate

    captured = fused("silu", function, (torch.randn(2, 3),), tolerance=0.0)
    assert not ops(captured)["silu"]
    assert decisions(captured, "silu") == [
        ("declined", "`sigmoid` in it is used elsewhere too")
    ]


def test_integers_stay() -> None:
    def function(x: Any) -> Any:
        return x * torch.sigmoid(x)

    left_alone("silu", "silu", function, torch.arange(4))


def test_swiglu() -> None:
    def function(gate: Any, x: Any) -> Any:
        return functional.silu(gate) * x

    args = (torch.randn(2, 3), torch.randn(2, 3))
    assert ops(fused("swiglu", function, args)) == {"swiglu": 1}
    run_lowered(function, args)


def test_gates_that_broadcast_stay() -> None:
    def function(gate: Any, x: Any) -> Any:
        return functional.silu(gate) * x

    left_alone("swiglu", "swiglu", function, torch.randn(2, 1), torch.randn(2, 3))
