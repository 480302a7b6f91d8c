"""Arithmetic on sizes."""

from __future__ import annotations

from typing import Any

import sympy
import torch

from tests.aten import check, ops
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.sizes import fold_sizes, is_nonnegative, size_node


def test_sizes_that_are_numbers_or_equal() -> None:
    def function(x: Any, y: Any) -> Any:
        n = x.shape[0]
        fixed = x.shape[1] // (x.shape[1] // 3) * 4
        return x.reshape((n * 2) // 2, -1, x.numel() // x.numel() + 1), y.new_zeros(
            n + 1, fixed
        )

    args = (torch.randn(4, 6), torch.randn(4, 3))
    captured = check(
        (fold_sizes, drop_dead_code),
        function,
        args,
        (torch.randn(7, 6), torch.randn(7, 3)),
        dynamic={"args": ({0: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO})},
    )
    sizes = [
        n for n in captured.graph.nodes if isinstance(n.meta.get("val"), torch.SymInt)
    ]
    expressions = [captured.expr(n.meta["val"]) for n in sizes]
    assert len(set(expressions)) == len(expressions)
    (reshape,) = (n for n in captured.graph.nodes if n.name == "reshape")
    assert reshape.args[1][0].target is torch.ops.aten.sym_size.int
    assert reshape.args[1][2] == 2
    assert ops(captured)["floordiv"] == 0


def test_is_nonnegative() -> None:
    n, m = sympy.symbols("n m")
    assert is_nonnegative(n * m - n)
    assert is_nonnegative(n - 1)
    assert not is_nonnegative(n - 2)
    assert not is_nonnegative(n - m)


def test_a_size_as_a_node() -> None:
    captured = check((), lambda x: (x.sum(0), x.shape[1] * 2), (torch.randn(3, 4),))
    *_, output = captured.graph.nodes
    batch, width = (
        next(n for n in captured.graph.nodes if n.name.startswith("arg"))
        .meta["val"]
        .shape
    )
    assert size_node(captured, output, batch).args[1] == 0
    assert size_node(captured, output, width * 2).target.__name__ == "mul"
    assert size_node(captured, output, width + 7) is None
    assert size_node(captured, output, 5) == 5
