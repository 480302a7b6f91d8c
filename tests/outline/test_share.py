"""What every layer computes alike is computed once; attentions differ in their mask only by a flag."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tests.program import check, compiled

X, Y = torch.randn(2, 5, 8), torch.randn(3, 7, 8)


class Layer(nn.Module):
    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.factor = factor

    def forward(self, x: Any, bias: Any, mask: Any) -> Any:
        scores = x @ x.transpose(1, 2)
        scores = scores + torch.where(mask, bias * self.factor, -1e9)
        return x + self.fc(scores.softmax(-1) @ x)


class Stack(nn.Module):
    def __init__(self, *factors: float):
        super().__init__()
        self.layers = nn.ModuleList(Layer(f) for f in factors)
        self.bias = nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        mask = x[:, :, :1] > 0
        bias = self.bias(x)
        for layer in self.layers:
            x = layer(x, bias, mask)
        return x


def test_computed_once() -> None:
    program = check(Stack(2.0, 2.0, 2.0), (X,), (Y,))
    assert program.source.count("mx.where") == 1
    assert "def __call__(self, x: mx.array, bias: mx.array) -> mx.array:" in (
        program.source
    )
    assert "for layer in self.layers:\n            x = layer(x, bias)" in program.source


def test_not_alike() -> None:
    """Another factor in each layer: nothing is shared, and the factor is a parameter."""
    source = check(Stack(2.0, 3.0, 4.0), (X,), (Y,)).source
    assert "def __call__(self, x: mx.array, bias: mx.array, mask: mx.array)" in source
    assert "mx.where(mask, bias * self.factor, -1" in source


class Random(nn.Module):
    def forward(self, x: Any) -> Any:
        return x + torch.rand(8)


def test_random_numbers_are_not_shared() -> None:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Random(), Random()

        def forward(self, x: Any) -> Any:
            return self.first(x) - self.second(x)

    module = compiled(Model(), (X,)).load()
    assert mx.all(module(mx.array(X.numpy())) != 0)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(8, 8)

    def forward(self, x: Any, is_causal: bool) -> Any:
        q = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        y = scaled_dot_product_attention(q, q, q, is_causal=is_causal)
        return y.transpose(1, 2).flatten(2)


class Two(nn.Module):
    def __init__(self, *causal: bool):
        super().__init__()
        self.causal = causal
        self.first, self.second = Attention(), Attention()

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x, self.causal[0]), self.causal[1])


def test_one_class_with_and_without_the_causal_mask() -> None:
    source = check(Two(False, True), (X,), (Y,)).source
    assert source.count("class Attention") == 1
    assert "def __init__(self, is_causal: bool = False):" in source
    assert 'mask="causal" if self.is_causal else None' in source
    assert "self.first = Attention()" in source
    assert "self.second = Attention(is_causal=True)" in source


def test_no_flag_where_all_are_alike() -> None:
    assert "is_causal" not in check(Two(True, True), (X,), (Y,)).source
    plain = check(Two(False, False), (X,), (Y,)).source
    assert "is_causal" not in plain
    assert "mask" not in plain
