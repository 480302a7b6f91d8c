"""Matrices picked by index become products that pick them; what may be out of range does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.aten import ops
from tests.lowering import lowered, run_lowered
from tests.passes.fused import decisions, fused, left_alone
from torch2mlx.ir.operators import GROUPED_MM

COUNT, WIDTH, OUT = 4, 8, 16
WEIGHT = torch.randn(COUNT, OUT, WIDTH)


def routed(x: torch.Tensor) -> torch.Tensor:
    """The two experts of each row, one after the other."""
    return torch.topk(x[:, :COUNT], 2)[1].reshape(-1)


def by_rows(x: Any) -> Any:
    rows = x.repeat_interleave(2, 0)[:, None]
    return torch.bmm(rows, WEIGHT.transpose(1, 2)[routed(x)])[:, 0]


def by_columns(x: Any) -> Any:
    rows = x.repeat_interleave(2, 0)
    return torch.bmm(WEIGHT[routed(x)], rows.unsqueeze(-1)).squeeze(-1)


def in_groups(x: Any, product: Any = GROUPED_MM, dtype: Any = torch.float32) -> Any:
    experts, order = torch.sort(routed(x))
    counts = torch.histc(experts.float(), COUNT, 0, COUNT - 1)
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    y = product(x[order // 2].to(dtype), WEIGHT.to(dtype).transpose(1, 2), ends)
    places = torch.arange(order.shape[0])
    return y[torch.empty_like(order).index_put((order,), places)]


def rows(count: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, WIDTH),)


@pytest.mark.parametrize("form", [by_rows, by_columns])
def test_picked_matrices(form: Callable[..., Any]) -> None:
    captured = fused("gather_mm", form, rows(5), rows(3), tolerance=1e-5)
    assert ops(captured)["gather_mm"] == 1
    assert ops(captured)["bmm"] == 0
    run_lowered(form, rows(5), rows(3))


def test_groups_are_sorted() -> None:
    captured = fused("grouped_mm", in_groups, rows(5), rows(3), tolerance=1e-5)
    (node,) = (n for n in captured.graph.nodes if n.name.startswith("gather_mm"))
    assert node.args[3] is True
    assert ops(captured)["histc"] == 0
    run_lowered(in_groups, rows(5), rows(3))


def test_groups_of_pytorch() -> None:
    """PyTorch captures its own operator in bfloat16 alone."""

    def product(x: Any, weight: Any, ends: Any) -> Any:
        return F.grouped_mm(x, weight, offs=ends)

    def function(x: Any) -> Any:
        return in_groups(x, product, torch.bfloat16)

    captured = fused("grouped_mm", function, rows(5), rows(3), tolerance=2e-2)
    assert ops(captured)["gather_mm"] == 1
    run_lowered(function, rows(5), rows(3), tolerance=2e-2)


def test_half_precision() -> None:
    def function(x: Any) -> Any:
        picked = WEIGHT.to(torch.bfloat16).transpose(1, 2)[routed(x)]
        return torch.bmm(x.repeat_interleave(2, 0)[:, None].bfloat16(), picked)

    names = [
        getattr(node.target, "__name__", "")
        for node in lowered(function, rows(5)).graph.nodes
    ]
    assert "gather_mm" in names
    run_lowered(function, rows(5), rows(3), tolerance=2e-2)


def test_inverse_order() -> None:
    captured = fused("inverse_order", in_groups, rows(5), rows(3), tolerance=1e-5)
    assert ops(captured)["index_put"] == 0
    assert ops(captured)["argsort"] == 1


def given_index(x: Any, index: Any) -> Any:
    return torch.bmm(x[:, None], WEIGHT.transpose(1, 2)[index])


def shared(x: Any) -> Any:
    picked = WEIGHT.transpose(1, 2)[routed(x)]
    return torch.bmm(x.repeat_interleave(2, 0)[:, None], picked) + picked[:, :1]


def one_for_all(x: Any) -> Any:
    return torch.matmul(x[None], WEIGHT.transpose(1, 2)[routed(x)])


NEAR: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "any index": (given_index, (*rows(2), torch.tensor([-1, 1]))),
    "shared": (shared, rows(5)),
    "one for all": (one_for_all, rows(5)),
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    function, args = NEAR[near]
    left_alone("gather_mm", "gather_mm", function, *args)


def test_an_index_may_be_negative() -> None:
    function, args = NEAR["any index"]
    captured = fused("gather_mm", function, args)
    why = ("declined", "the indices may be negative")
    assert decisions(captured, "gather_mm") == [why]
    run_lowered(function, args)


def test_groups_of_another_number() -> None:
    """Only some of the matrices are counted: the general function is right."""
    weight = torch.randn(COUNT + 1, OUT, WIDTH)

    def function(x: Any) -> Any:
        ends = torch.arange(1, COUNT + 2, dtype=torch.int32)
        return GROUPED_MM(x, weight.transpose(1, 2), ends)

    captured = fused("grouped_mm", function, rows(COUNT + 1), dynamic=False)
    why = ("declined", "where the groups end is not counted from indices")
    assert decisions(captured, "grouped_mm") == [why]
    run_lowered(function, rows(COUNT + 1), dynamic=False)
    run_lowered(function, rows(COUNT + 3), dynamic=False)
    run_lowered(function, rows(COUNT + 3), dynamic=False)


TABLES: dict[str, Callable[[Any], Any]] = {
    "longer": lambda x: x.new_zeros(9),
    "values": lambda x: torch.zeros_like(x),
}


@pytest.mark.parametrize("table", TABLES)
def test_other_tables(table: str) -> None:
    def function(x: Any) -> Any:
        order = torch.argsort(x)
        places = torch.arange(order.shape[0]) * (2 if table == "values" else 1)
        return TABLES[table](order).index_put((order,), places)

    args = (torch.randn(5),)
    captured = fused("inverse_order", function, args, dynamic=False)
    assert ops(captured)["index_put"] == 1
    run_lowered(function, args, dynamic=False)
