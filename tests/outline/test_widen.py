"""Attention to itself and to a memory as one class: the first is given its input twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.program import check

X, Y = (torch.randn(2, 5, 8), torch.randn(2, 3, 8)), (
    torch.randn(3, 4, 8),
    torch.randn(3, 7, 8),
)


class Attention(nn.Module):
    def __init__(self, sign: int = 1):
        super().__init__()
        self.q, self.k, self.sign = nn.Linear(8, 8), nn.Linear(8, 8), sign

    def forward(self, x: Any, memory: Any = None) -> Any:
        source = x if memory is None else memory
        scores = self.q(x) @ self.k(source).transpose(1, 2)
        return scores.softmax(-1) @ (source if self.sign > 0 else -source)


class Decoder(nn.Module):
    def __init__(self, sign: int = 1):
        super().__init__()
        self.own, self.cross = Attention(), Attention(sign)

    def forward(self, x: Any, memory: Any) -> Any:
        x = x + self.own(x)
        return x + self.cross(torch.tanh(x), memory)


def test_attention_to_itself_and_to_a_memory() -> None:
    program = check(Decoder(), X, Y)
    assert program.source.count("class Attention") == 1
    assert "x = x + self.own(x, x)" in program.source
    assert "self.cross(mx.tanh(x), memory)" in program.source


def test_code_that_differs_in_more_is_another_class() -> None:
    source = check(Decoder(-1), X, Y).source
    assert source.count("class Attention") == 2
    assert "self.own(x)" in source


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(3))
        self.cross = Attention()

    def forward(self, x: Any, memory: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.cross(x, memory)


def test_layers_of_a_loop_stay() -> None:
    source = check(Encoder(), X, Y).source
    assert source.count("class Attention") == 2
    assert "x = layer(x)" in source
