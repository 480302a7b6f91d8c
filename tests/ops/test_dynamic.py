"""Operators whose results have sizes, or are numbers, that depend on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import NAN, bools, case, floats, ints
from torch2mlx.lower.evaluation import evaluation_notes
from torch2mlx.lower.interpret import MLXInterpreter

X = torch.tensor([[0.0, 2.0, -1.0], [3.0, 0.0, 0.0]])
ZERO, FULL = torch.zeros(4, 3), torch.ones(3, 2)
IDS = ints(3, 1, 1, 2, 1)
ROWS = ints(1, 2, 0, 1, 2, 1, 1, 2).reshape(4, 2)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("nonzero", lambda x: x.nonzero(), X),
        case("nonzero as tuple", lambda x: x.nonzero(as_tuple=True), X),
        case("nonzero of nan", lambda x: x.nonzero(), floats(0, NAN, 1)),
        case("argwhere", torch.argwhere, X),
        case("where of a condition", lambda x: torch.where(x > 0), X),
        case("masked_select", lambda x: x.masked_select(x > 0), X),
        case("mask of all", lambda x: x[x > 0], X),
        case("mask of rows", lambda x: x[x[:, 0] > 0], X),
        case("mask of columns", lambda x: x[:, x[0] > 0], X),
        case("mask that broadcasts", lambda x: x.masked_select(x[:1] > 0), X),
        case("item as size", lambda x: x[: (x > 0).sum().item()], X),
        case("item as number", lambda x: x * x.sum().item(), X),
        case("item of bool", lambda x: x * (x > 1).any().item(), X),
        case("arithmetic with items", lambda x: x * (x.sum().item() * 2 + 1), X),
        case("sum of few", lambda x: x[x > 0].sum() / (x[x > 0].shape[0] + 1), X),
        case("reshape", lambda x: x[x[:, 1] > 0].reshape(-1, 1), X),
        case("scatter back", lambda x: x.index_put((x > 0,), x[x > 0] * 2), X),
    ],
)
def test_counts(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    others = () if args[0].ndim == 1 else ((ZERO,), (FULL,))
    run_lowered(function, args, *others)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("unique", torch.unique, IDS),
        case("unique, all", lambda x: torch.unique(x, True, True, True), IDS),
        case("unique of a matrix", lambda x: torch.unique(x, True, True, True), ROWS),
        case("unique of nan", torch.unique, floats(NAN, 1, NAN, -1)),
        case("unique of bools", torch.unique, bools(1, 0, 1)),
        case("rows", lambda x: torch.unique(x, True, True, True, 0), ROWS),
        case("columns", lambda x: torch.unique(x, True, True, True, 1), ROWS),
        case("consecutive", torch.unique_consecutive, IDS),
        case("runs", lambda x: torch.unique_consecutive(x, True, True), ROWS),
        case("row runs", lambda x: torch.unique_consecutive(x, True, True, 0), ROWS),
        case("bincount", torch.bincount, IDS),
        case("bincount, least", lambda x: torch.bincount(x, minlength=7), IDS),
        case("bincount, weights", lambda x: torch.bincount(x, x * 0.5), IDS),
        case("repeat", torch.repeat_interleave, IDS),
        case("repeat of each", lambda x: torch.repeat_interleave(x, x), IDS),
        case("repeat of rows", lambda x: x.repeat_interleave(x[:, 0], 0), ROWS),
        case("repeat of all", lambda x: x.repeat_interleave(x[0, :1]), ROWS),
        case("size", lambda x: x.repeat_interleave(x, 0, output_size=8), IDS),
        case("arange", lambda x: torch.arange(x.max().item()), IDS),
        case("zeros", lambda x: torch.zeros(x[:2].tolist()), IDS),
        case("tensor_split", lambda x: x.tensor_split(x[3:].sort()[0]), IDS),
    ],
)
def test_values(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


NUMBERS = (ints(0, 2, 1, 0), ints(5, 5, 5), torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize(
    "function",
    [
        torch.bincount,
        torch.repeat_interleave,
        torch.unique_consecutive,
        lambda x: torch.unique(x, return_inverse=True, return_counts=True),
        lambda x: torch.arange(x.sum().item()),
    ],
)
def test_other_values(function: Callable[..., Any]) -> None:
    run_lowered(function, (IDS,), *((x,) for x in NUMBERS))


@pytest.mark.parametrize("size", [0, 2, 9])
def test_nonzero_static(size: int) -> None:
    run_lowered(lambda x: torch.nonzero_static(x, size=size), (X,), (ZERO,))
    fill = lambda x: torch.nonzero_static(x, size=size, fill_value=7)  # noqa: E731
    run_lowered(fill, (X,), (FULL,))


def test_numbers_are_python_numbers() -> None:
    def numbers(x: torch.Tensor) -> Any:
        return x.sum().item(), x.long().sum().item(), (x > 0).any().item()

    found = run_lowered(numbers, (X,))
    assert [type(number) for number in found] == [float, int, bool]


def test_what_is_evaluated_is_noted() -> None:
    def counts(x: torch.Tensor) -> Any:
        return x[x > 0].sum() + x.sum().item()

    (note,) = evaluation_notes(lowered(counts, (X,)).graph)
    assert "`masked_select`, `item`" in note
    assert evaluation_notes(lowered(lambda x: x + 1, (X,)).graph) == []
    known = lowered(lambda x: x.repeat_interleave(x, 0, output_size=8), (IDS,))
    assert evaluation_notes(known.graph) == []


def test_multinomial_without_replacement() -> None:
    weights = torch.tensor([0.0, 1.0, 1.0, 6.0]).expand(3, 4)
    program = lowered(lambda x: torch.multinomial(x, 3), (weights,))
    inputs = mx.broadcast_to(mx.array([0.0, 1.0, 1.0, 6.0]), (2000, 4))
    (drawn,) = MLXInterpreter(program, {}).run(inputs)
    found = np.array(drawn)
    assert (np.sort(found, axis=1) == [1, 2, 3]).all()
    assert abs((found[:, 0] == 3).mean() - 0.75) < 0.05
    assert abs((found[:, 1] == 3).mean() - 0.25 * 6 / 7) < 0.05
