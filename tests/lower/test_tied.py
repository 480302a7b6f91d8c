"""Heads that share the embedding's table are calls of the embedding layer."""

from __future__ import annotations

import mlx.nn
import torch
from torch import nn

import torch2mlx
from tests.lowering import lowered, run_lowered
from torch2mlx.ir import intrinsics

TOKENS = torch.randint(0, 11, (2, 5))


class Language(nn.Module):
    """An embedding, scaled or not, and a head that may be tied to it."""

    def __init__(self, tied: bool = True, scale: float = 1.0, bias: bool = False):
        super().__init__()
        self.embed = Scaled(scale) if scale != 1 else nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=bias)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embed(tokens)))


class Scaled(nn.Embedding):
    """As Gemma has it."""

    def __init__(self, scale: float):
        super().__init__(11, 4)
        self.scale = scale

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) * self.scale


def test_tied() -> None:
    nodes = list(lowered(Language(), (TOKENS,)).graph.nodes)
    assert [n.target for n in nodes].count(intrinsics.as_linear) == 1
    run_lowered(Language(), (TOKENS,), (torch.randint(0, 11, (1, 7)),))


def test_written() -> None:
    for scale in (1.0, 3.0):
        program = torch2mlx.compile(Language(scale=scale), (TOKENS,))
        assert "self.embed.as_linear(" in program.source
        assert "self.embed = nn.Embedding(11, 4)" in program.source
        assert program.source.count("nn.Module") == 1
        assert program.verify().ok


def test_an_untied_head_is_a_layer() -> None:
    nodes = list(lowered(Language(tied=False), (TOKENS,)).graph.nodes)
    layers = [n.meta["layer"].cls for n in nodes if n.op == "call_module"]
    assert layers == [mlx.nn.Embedding, mlx.nn.Linear]


def test_a_tied_head_with_a_bias() -> None:
    """The bias is added to what the embedding layer gives."""
    run_lowered(Language(bias=True), (TOKENS,))
    assert torch2mlx.compile(Language(bias=True), (TOKENS,)).verify().ok


def test_a_table_without_a_layer() -> None:
    """Where the table is no embedding layer's, the product stays."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(11, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.table) @ self.table

    nodes = list(lowered(Table(), (torch.randn(2, 4),)).graph.nodes)
    assert intrinsics.as_linear not in [n.target for n in nodes]
    run_lowered(Table(), (torch.randn(2, 4),))
