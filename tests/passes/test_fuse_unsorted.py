"""Rows that are sorted by their experts and brought back keep their order; where that cannot be seen, they are sorted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused

COUNT, WIDTH, OUT = 4, 8, 16
UP, DOWN = torch.randn(COUNT, WIDTH, 2 * OUT), torch.randn(COUNT, OUT, WIDTH)
BIAS = torch.randn(COUNT, 2 * OUT)

Sorted = Callable[[Any, Any, Any, Any], Any]


def rows(count: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, WIDTH),)


def experts(sorted_rows: Sorted, each: int = 2) -> Callable[[Any], Any]:
    """What `sorted_rows(x, index, order, w)` makes of the rows, brought back; `w` are the weights of the router."""

    def function(x: Any) -> Any:
        weights, index = torch.topk(x[:, :COUNT].softmax(-1), each)
        index, order = torch.sort(index.reshape(-1))
        y = sorted_rows(x[order // each], index, order, weights.reshape(-1)[order])
        y = y[torch.argsort(order)]
        return y.view(x.shape[0], each, -1).sum(1)

    return function


def gated(x: Any, index: Any, order: Any, weights: Any) -> Any:
    both = torch.bmm(x[:, None], UP[index]).squeeze(1) + BIAS[index]
    gate, up = both.chunk(2, -1)
    y = torch.bmm((F.silu(gate) * up)[:, None], DOWN[index])[:, 0]
    return y * weights[:, None]


def interleaved(x: Any, index: Any, order: Any, weights: Any) -> Any:
    both = torch.bmm(x[:, None], UP[index]).squeeze(1)
    gate, up = both[:, ::2].clamp(max=1.0), both[:, 1::2].to(torch.float32)
    return F.layer_norm(gate.sigmoid() * (up + 1), (OUT,)) * weights.unsqueeze(1)


def linear(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return F.linear(x, DOWN[0]).softmax(1) + x.sum(1, keepdim=True)


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("sorted_rows", [gated, interleaved, linear])
def test_rows_keep_their_order(sorted_rows: Sorted, each: int) -> None:
    function = experts(sorted_rows, each)
    names = "gather_mm unsorted_rows"
    captured = fused(names, function, rows(5), rows(3), tolerance=1e-5)
    assert ops(captured)["sort"] == ops(captured)["argsort"] == 0, captured.graph
    run_lowered(function, rows(5), rows(3), rows(40))


def test_any_order() -> None:
    """The index may be anything, and the sort go downwards."""

    def function(x: Any) -> Any:
        index, order = torch.sort((5 * x[:, 0]).int(), descending=True)
        return (x[order] + index[:, None])[torch.argsort(order)]

    captured = fused("unsorted_rows", function, rows(5), rows(3))
    assert ops(captured)["sort"] == ops(captured)["index"] == 0
    run_lowered(function, rows(5), rows(3))


def mixed(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x.cumsum(0)


def by_first(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x - x[:1]


def by_place(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x * torch.arange(x.shape[0])[:, None]


def by_order(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x + order[:, None]


def along_rows(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x.softmax(0)


def turned(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x.transpose(0, 1).chunk(2, 1)[0].transpose(0, 1).repeat(2, 1)


def products(x: Any, index: Any, order: Any, weights: Any) -> Any:
    return x @ (x.transpose(0, 1) @ x)


NEAR = [mixed, by_first, by_place, by_order, along_rows, turned, products]


@pytest.mark.parametrize("sorted_rows", NEAR)
def test_rows_that_depend_on_their_place(sorted_rows: Sorted) -> None:
    function = experts(sorted_rows)
    captured = fused("unsorted_rows", function, rows(4), rows(6), tolerance=1e-5)
    assert ops(captured)["sort"] == 1, captured.graph
    run_lowered(function, rows(4), rows(6))


def test_other_repeats() -> None:
    """The rows are not the tokens that the experts were picked for."""

    def function(x: Any) -> Any:
        index = torch.topk(x[:, :COUNT], 2)[1].reshape(-1)
        index, order = torch.sort(index)
        return x[order // 3][torch.argsort(order)]

    captured = fused("unsorted_rows", function, rows(5), rows(3))
    why = ("declined", "the order is used in another way")
    assert decisions(captured, "unsorted_rows") == [why]
    run_lowered(function, rows(5), rows(3))


def test_sorted_rows_that_are_a_result() -> None:
    def function(x: Any) -> Any:
        _, order = torch.sort(x[:, 0])
        y = x[order] * 2
        return y, y[torch.argsort(order)]

    captured = fused("unsorted_rows", function, rows(5), rows(3))
    why = ("declined", "the sorted rows are used elsewhere too")
    assert decisions(captured, "unsorted_rows") == [why]
    run_lowered(function, rows(5), rows(3))


def test_another_order_back() -> None:
    def function(x: Any) -> Any:
        _, order = torch.sort(x[:, 0])
        return x[order][torch.argsort(order, descending=True)]

    captured = fused("unsorted_rows", function, rows(5), rows(3))
    assert ops(captured)["sort"] == 1
    run_lowered(function, rows(5), rows(3))
