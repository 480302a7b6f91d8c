"""What passes ask of sizes fixes none of them."""

from __future__ import annotations

import torch
from torch import nn

from torch2mlx.capture import capture
from torch2mlx.passes.rewrite import keeps_shape


class Halves(nn.Module):
    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.reshape(-1, 4).relu(), table])


def test_sizes_that_are_equal_for_the_example_only() -> None:
    captured = capture(Halves(), (torch.randn(2, 8), torch.randn(4, 4)), dynamic="auto")
    nodes = {node.name: node for node in captured.graph.nodes}
    rows, table = nodes["reshape"], nodes["table"]
    assert keeps_shape(nodes["relu"], rows)
    assert not keeps_shape(rows, table)
    assert not keeps_shape(rows, nodes["x"])
    assert captured.size(rows.meta["val"].shape[0]) == 4
    assert not captured.expr(rows.meta["val"].shape[0]).is_number
