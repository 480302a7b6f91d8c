"""Calls that change nothing are dropped, and those that change something are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.aten import check, ops
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.simplify import simplify

NOTHING: list[Callable[[Any], Any]] = [
    lambda x: x.clone(),
    lambda x: x.contiguous().detach(),
    lambda x: x.to(torch.float32).float().type_as(x),
    lambda x: x[:],
    lambda x: x[:, 0:],
    lambda x: x[:, : x.shape[1]],
    lambda x: x.expand(-1, -1),
    lambda x: x.expand_as(x),
    lambda x: x.reshape(x.shape),
    lambda x: x.view(x.shape[0], -1),
    lambda x: x.permute(0, 1).transpose(1, 1),
    lambda x: x.unsqueeze(1).squeeze(1),
    lambda x: x.unsqueeze(-1).squeeze(2),
    lambda x: functional.dropout(x, 0.0, False),
    lambda x: torch.cat([x]),
    lambda x: torch.cat([x, x[:, :0]], 1),
    lambda x: torch.cat([torch.zeros(0), x], 1),
    lambda x: x * 1 - 0,
    lambda x: x / 1.0,
    lambda x: x**1,
    lambda x: x.repeat(1, 1),
]


@pytest.mark.parametrize("function", NOTHING)
def test_nothing_is_left(function: Callable[[Any], Any]) -> None:
    captured = check(
        (simplify, drop_dead_code),
        lambda x: function(x.sin()),
        (torch.randn(3, 4),),
        (torch.randn(5, 2),),
    )
    left = {name: count for name, count in ops(captured).items() if name != "sym_size"}
    assert left == {"sin": 1}


SOMETHING: list[tuple[str, Callable[[Any], Any]]] = [
    ("slice", lambda x: x[1:]),
    ("slice", lambda x: x[:, :2]),
    ("slice", lambda x: x[:, : x.shape[1] - 1]),
    ("slice", lambda x: x[::2]),
    ("expand", lambda x: x[:1].expand(3, -1)),
    ("reshape", lambda x: x.view(-1)),
    ("permute", lambda x: x.permute(1, 0)),
    ("unsqueeze", lambda x: x.unsqueeze(0).squeeze(1)),
    ("to", lambda x: x.to(torch.float64)),
    ("dropout", lambda x: functional.dropout(x, 0.5, False)),
    ("add", lambda x: x + 0.0),  # -0.0 becomes 0.0
    ("mul", lambda x: x.int() * 1.0),
    ("cat", lambda x: torch.cat([x, x])),
    ("cat", lambda x: torch.cat([x, x[:, :0], x], -1)),
    ("cat", lambda x: torch.cat([x.int(), x[:0]])),
    ("cat", lambda x: torch.cat([x[:, :0], x[:, :0]])),
    ("repeat", lambda x: x.repeat(1, 2)),
]


@pytest.mark.parametrize(("name", "function"), SOMETHING)
def test_something_stays(name: str, function: Callable[[Any], Any]) -> None:
    x = torch.randn(3, 4)
    x[0, 0] = -0.0
    captured = check((simplify,), function, (x,), (torch.randn(3, 6),))
    assert ops(captured)[name] == 1


def test_integer_zero_is_added_for_nothing() -> None:
    captured = check((simplify,), lambda x: x + 0, (torch.arange(6).view(2, 3),))
    assert not ops(captured)


def test_repeating_once_adds_axes() -> None:
    captured = check((simplify,), lambda x: x.repeat(1, 1, 1, 1), (torch.randn(2, 3),))
    assert ops(captured) == {"unsqueeze": 2}


def test_assertions_go() -> None:
    def function(x: Any) -> Any:
        torch._check(x.shape[0] > 1)
        return x.to(torch.bool)

    captured = check((simplify,), function, (torch.randn(3, 4),))
    assert ops(captured)["to"] == 1
    assert not any("assert" in str(n.target) for n in captured.graph.nodes)


def test_conversions_are_written_one_way() -> None:
    def function(x: Any) -> Any:
        return (
            x.to("cpu", torch.float16),
            x.half(),
            x.type_as(torch.ones(1, dtype=torch.int32)),
        )

    captured = check((simplify,), function, (torch.randn(3, 4),))
    targets = [
        n.target
        for n in captured.graph.nodes
        if "to" in n.name and n.op == "call_function"
    ]
    assert targets == [torch.ops.aten.to.dtype] * 3


def test_names_move_to_what_stays() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.sin().contiguous())

    captured = check((simplify,), Wrapped(), (torch.randn(3, 4),))
    (sin,) = (n for n in captured.graph.nodes if n.name == "sin")
    assert ("linear", "input") in sin.meta["forward_args"]
