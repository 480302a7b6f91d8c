"""Leading axes that broadcasting adds by itself go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.aten import check, ops
from torch2mlx.passes.broadcasts import broadcasts
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.leading import leading
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes

PASSES = (simplify, fold_sizes, broadcasts, leading, drop_dead_code)


def unsqueezes(function: Callable[..., Any], *cases: tuple[Any, ...]) -> Any:
    """How many calls of `unsqueeze` are left, and the graph."""
    captured = check(PASSES, function, *cases)
    return ops(captured)["unsqueeze"], captured


def test_masks_of_positions() -> None:
    def function(scores: Any) -> Any:
        positions = torch.arange(scores.shape[-1])[None, None]
        allowed = positions[..., None, :] <= positions[..., :, None]
        return scores + torch.where(allowed, 0.0, -1e9)

    args, others = (torch.randn(2, 3, 5, 5),), (torch.randn(1, 2, 4, 4),)
    count, captured = unsqueezes(function, args, others)
    assert count == 1  # that of the rows
    (where,) = (n for n in captured.graph.nodes if n.name.startswith("where"))
    assert where.meta["val"].ndim == 2


def test_masks_of_attention() -> None:
    def function(q: Any) -> Any:
        positions = torch.arange(q.shape[2])
        near = ((positions - positions[:, None]).abs() < 2)[None, None]
        return functional.scaled_dot_product_attention(q, q, q, near)

    args, others = (torch.randn(2, 3, 5, 4),), (torch.randn(1, 2, 4, 4),)
    captured = check(PASSES, function, args, others, tolerance=1e-6)
    assert ops(captured)["unsqueeze"] == 1


class Rows(torch.nn.Module):
    """Adds the first rows of a table to [batch, length, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(9, 4)

    def forward(self, x: Any) -> Any:
        return x + self.table.weight[: x.shape[1]][None]


class LastRows(Rows):
    def forward(self, x: Any) -> Any:
        return x + self.table(8 - torch.arange(x.shape[1])[None])


@pytest.mark.parametrize("model", [Rows(), LastRows()])
def test_rows_of_tables(model: torch.nn.Module) -> None:
    count, _ = unsqueezes(model, (torch.randn(2, 5, 4),), (torch.randn(1, 3, 4),))
    assert count == 0


def test_rows_of_an_input() -> None:
    def function(x: Any, y: Any) -> Any:
        return x + y[None]

    args, others = (torch.randn(2, 3, 4), torch.randn(3, 4)), (
        torch.randn(1, 2, 4),
        torch.randn(2, 4),
    )
    assert unsqueezes(function, args, others)[0] == 1


NEAR: dict[str, Callable[[Any], Any]] = {
    "an input": lambda x: x + x[0][None],
    "a further axis": lambda x: x[0, 0] + torch.arange(x.shape[2])[None],
    "the only axis": lambda x: x * torch.arange(1)[0][None].float(),
    "an axis within": lambda x: x + torch.arange(x.shape[0])[:, None, None],
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    function = NEAR[near]
    captured = check((fold_sizes,), function, (torch.randn(2, 3, 4),))
    count, _ = unsqueezes(function, (torch.randn(2, 3, 4),), (torch.randn(3, 2, 5),))
    assert count == ops(captured)["unsqueeze"] > 0
