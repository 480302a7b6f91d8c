"""Autocast and gradient regions become part of the graph around them."""

from __future__ import annotations

from typing import Any

import torch

from tests.aten import check, ops
from torch2mlx.passes.inline import inline


def test_gradient_regions() -> None:
    def function(x: Any) -> Any:
        y = x + 1
        with torch.enable_grad():
            z = y * 2
            w = z.sin()
        return y, z - w

    captured = check((inline,), function, (torch.randn(3, 4),))
    assert ops(captured) == {"add": 1, "mul": 1, "sin": 1, "sub": 1}


def test_autocast_that_is_off() -> None:
    def function(x: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            y = x.float().exp()
        return y * 2

    captured = check((inline,), function, (torch.randn(3, 4),))
    assert "wrap_with_autocast" not in ops(captured)


def test_autocast_casts_operands() -> None:
    def function(x: Any, w: Any) -> Any:
        y = x * 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = torch.nn.functional.linear(y, w)
            s = z.float() + 1
            d = torch.cdist(z.float(), z.float())
        return y, z, s, d

    captured = check((inline,), function, (torch.randn(3, 4), torch.randn(5, 4)))
    (linear,) = (n for n in captured.graph.nodes if "linear" in n.name)
    assert [n.target for n in linear.args] == [torch.ops.aten.to.dtype] * 2
    assert linear.meta["val"].dtype == torch.bfloat16


def test_origins_are_kept() -> None:
    class Inner(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                return x.sin()

    captured = check((inline,), torch.nn.Sequential(Inner()), (torch.randn(3),))
    (sin,) = (
        n for n in captured.graph.nodes if n.op == "call_function" and "sin" in n.name
    )
    assert [path for path, _ in sin.meta["nn_module_stack"].values()] == ["", "0"]
