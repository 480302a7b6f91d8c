"""Buffers that a formula gives, and what is cut from them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.aten import check, ops
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.creation import recognised
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.formulas import formulas
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes

PASSES = (simplify, fold_sizes, formulas, drop_dead_code)


class Positions(nn.Module):
    """BERT's buffers."""

    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        positions = torch.arange(32).expand(1, -1)
        self.register_buffer("positions", positions.clone(), persistent)
        self.register_buffer("types", torch.zeros(1, 32, dtype=torch.long), persistent)
        self.register_buffer(
            "causal", torch.tril(torch.ones(1, 1, 32, 32)).bool(), persistent
        )

    def forward(self, x: torch.Tensor) -> Any:
        batch, length = x.shape
        positions = self.positions[:, 2 : length + 2]
        types = torch.gather(
            self.types.expand(batch, -1), 1, positions.expand(batch, -1)
        )
        return positions, types, self.causal[:, :, :length, :length], x * 2


def test_buffers_vanish() -> None:
    cases = ((torch.randn(n, 7 + n),) for n in (2, 3))
    captured = check(PASSES, Positions(), *cases)
    assert not captured.weights
    created = {"arange": 1, "unsqueeze": 3, "zeros": 1, "ones": 1, "tril": 1, "mul": 1}
    assert {k: v for k, v in ops(captured).items() if k in created} == created
    assert not {"gather", "slice", "expand"} & set(ops(captured))
    assert {decision.what for decision in captured.decisions} == {
        "positions",
        "types",
        "causal",
    }
    assert any(note.startswith("`x.shape[1]` is at most 32") for note in captured.notes)


def test_persistent_buffers_stay() -> None:
    captured = check(PASSES, Positions(persistent=True), (torch.randn(2, 7),))
    assert set(captured.weights.values()) == {"positions", "types", "causal"}
    assert not captured.decisions


def test_buffers_without_values_stay() -> None:
    from torch2mlx.capture import capture

    with torch.device("meta"):
        model, x = Positions(), torch.randn(2, 7)
    captured = capture(model.eval(), (x,))
    for transform in PASSES:
        transform(captured)
    assert set(captured.weights.values()) == {"positions", "types", "causal"}


TENSORS = [
    torch.arange(5),
    torch.arange(3, 19, 4).view(1, -1, 1),
    torch.arange(6, dtype=torch.float32)[:, None],
    torch.tensor(0.25),
    torch.full((2, 3), float("inf")),
    torch.ones(4, dtype=torch.bool),
    torch.tril(torch.ones(4, 4)),
    torch.tril(torch.ones(3, 5), 1).bool(),
    torch.tril(torch.ones(5, 3), -1).int(),
    torch.triu(torch.ones(1, 4, 4), 1).bool(),
    torch.triu(torch.ones(3, 5), -1),
    torch.tril(torch.ones(5, 3), -2),
    torch.triu(torch.ones(3, 5), 2),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: f"{t.dtype} {tuple(t.shape)}")
def test_tensors_with_a_formula(tensor: torch.Tensor) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("constant", tensor, persistent=False)

        def forward(self, x: torch.Tensor) -> Any:
            return x, self.constant.flip(0) if tensor.ndim else self.constant + 1

    captured = check(PASSES, Constant(), (torch.randn(2, 3),))
    assert not captured.weights


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0, 1, 3, 6]),
        torch.tensor([7, 9]),
        torch.tensor([0.0, 0.5, 1.0, 1.5]),
        torch.tensor(float("nan")),
        torch.eye(3),
        torch.arange(6).view(2, 3),
        torch.tensor([[1.0, 0.0], [1.0, 2.0]]),
        torch.tensor([1 + 1j]),
        torch.empty(0, 3),
        torch.tensor([0, 0, 1, 1], dtype=torch.bool),
    ],
)
def test_tensors_without_one(tensor: torch.Tensor) -> None:
    assert recognised(tensor) is None


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
OTHERS = [torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn]
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 2.0**62, 1e308]),
    st.floats(),
    st.integers(-(2**62), 2**62),
)


@st.composite
def constants(draw: Any) -> torch.Tensor:
    """An array of any dtype: arbitrary, a range or a triangle, perhaps with one other element."""
    dtype = draw(st.sampled_from(FLOATS + INTEGERS + OTHERS))
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    size = math.prod(shape)
    start, step = draw(NUMBERS), draw(NUMBERS)
    kind = draw(st.sampled_from(["arbitrary", "range", "triangle"]))
    if kind == "arbitrary":
        numbers = draw(st.lists(NUMBERS, min_size=size, max_size=size))
    else:
        numbers = [start + i * step for i in range(size)]
    if numbers and draw(st.booleans()):
        numbers[draw(st.integers(0, size - 1))] = draw(NUMBERS)
    tensor = torch.tensor(numbers, dtype=torch.float64).reshape(shape)
    if kind == "triangle" and len(shape) > 1:
        tensor = torch.ones(shape).tril(draw(st.integers(-6, 6)))
    if dtype == torch.int64 and all(isinstance(n, int) for n in numbers):
        return torch.tensor([n % 2**63 for n in numbers], dtype=dtype).reshape(shape)
    return tensor.to(dtype)


@settings(max_examples=400, deadline=None)
@given(constants())
def test_any_constant(tensor: torch.Tensor) -> None:
    found = recognised(tensor)
    if found is None:
        return
    for index in itertools.product(*map(range, tensor.shape)):
        number = found.offset + sum(
            s * i for s, i in zip(found.steps, index, strict=True)
        )
        number = bool(number >= 0) if found.sign else number
        assert float(number) == float(tensor[index])


def elements(function: Any, *args: torch.Tensor) -> Any:
    """What is known about the elements of a function's result."""
    captured = check((simplify, fold_sizes), function, args)
    *_, output = captured.graph.nodes
    return Formulas(captured).of(output.args[0][0])


def test_affine_elements() -> None:
    x = torch.randn(4, 6)
    found = elements(
        lambda x: torch.arange(3, x.shape[1])[:, None] * 2 - torch.arange(4) + 1, x
    )
    assert (found.offset, found.steps, found.sign) == (7, (2, -1), False)
    found = elements(lambda x: torch.arange(x.shape[1])[2:][::3].unsqueeze(0).t(), x)
    assert (found.offset, found.steps) == (2, (3, 0))
    found = elements(lambda x: torch.cumsum(torch.ones_like(x, dtype=torch.long), 1), x)
    assert (found.offset, found.steps) == (1, (0, 1))
    assert elements(lambda x: torch.arange(x.shape[1]) ** 2, x) is None
    assert elements(lambda x: torch.arange(6) * torch.arange(6), x) is None
    assert elements(lambda x: x.long() + torch.arange(6), x) is None


def test_comparisons() -> None:
    x = torch.randn(4, 6)

    def constant(function: Any) -> Any:
        found = elements(function, x)
        return None if found is None else found.constant

    assert constant(lambda x: torch.arange(x.shape[1]) >= 0) == 1
    assert constant(lambda x: torch.arange(x.shape[1]) > 0) is None
    assert constant(lambda x: torch.arange(x.shape[1]) < x.shape[1]) == 1
    assert constant(lambda x: torch.arange(x.shape[1]) < x.shape[0]) is None
    assert constant(lambda x: torch.arange(x.shape[1]) == -1) == 0
    assert constant(lambda x: ~(torch.arange(x.shape[1]) == -1)) == 1
    assert constant(lambda x: torch.arange(x.shape[1]) != torch.arange(x.shape[1])) == 0
    assert constant(lambda x: torch.diff(torch.arange(x.shape[1])) == 1) == 1
    assert constant(lambda x: (torch.arange(4) >= 0) & (torch.arange(4) < 0)) == 0
    found = elements(
        lambda x: torch.arange(x.shape[1])[:, None] > torch.arange(x.shape[1]), x
    )
    assert (found.offset, found.steps, found.sign) == (-1, (1, -1), True)
    found = elements(lambda x: ~(torch.arange(4)[:, None] > torch.arange(4)), x)
    assert (found.offset, found.steps, found.sign) == (0, (-1, 1), True)
