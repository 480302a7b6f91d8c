"""Random operators: shapes, dtypes and distributions, since the numbers cannot agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, to_mlx
from torch2mlx.lower.interpret import MLXInterpreter

X = torch.full((200, 100), 0.3)


def run(function: Callable[..., Any]) -> mx.array:
    mx.random.seed(0)
    (y,) = MLXInterpreter(lowered(function, (X,)), {}).run(to_mlx(X))
    return y


@pytest.mark.parametrize(
    ("function", "dtype", "mean", "std"),
    [
        (torch.rand_like, mx.float32, 0.5, 12**-0.5),
        (lambda x: torch.rand(x.shape), mx.float32, 0.5, 12**-0.5),
        (torch.randn_like, mx.float32, 0.0, 1.0),
        (lambda x: torch.randn(x.shape[0], 100), mx.float32, 0.0, 1.0),
        (lambda x: torch.randint(10, 13, x.shape), mx.int32, 11.0, (2 / 3) ** 0.5),
        (lambda x: torch.randint_like(x, 3), mx.float32, 1.0, (2 / 3) ** 0.5),
        (torch.bernoulli, mx.float32, 0.3, 0.21**0.5),
        (lambda x: torch.normal(x, 2.0), mx.float32, 0.3, 2.0),
        (lambda x: torch.normal(1.0, 2.0, x.shape), mx.float32, 1.0, 2.0),
        (lambda x: F.dropout(x, 0.4), mx.float32, 0.3, 0.3 * (0.4 / 0.6) ** 0.5),
    ],
)
def test_distribution(
    function: Callable[..., Any], dtype: mx.Dtype, mean: float, std: float
) -> None:
    y = run(function)
    assert y.shape == (200, 100)
    assert y.dtype in (dtype, mx.int64 if dtype == mx.int32 else dtype)
    assert abs(y.mean().item() - mean) < 0.05
    assert abs(y.astype(mx.float32).std().item() - std) < 0.05


def test_permutation() -> None:
    y = run(lambda x: torch.randperm(100) + x[0].long())
    assert sorted(y.tolist()) == list(range(100))


def test_channels_are_dropped_whole() -> None:
    y = run(lambda x: F.dropout2d(x[None, :, :, None].expand(1, 200, 100, 2), 0.5))
    kept = (y[0] != 0).any(axis=(1, 2))
    assert mx.array_equal(kept, (y[0] != 0).all(axis=(1, 2)))
    assert 60 < kept.sum().item() < 140


def test_one_sample_by_weight() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    program = lowered(lambda w: torch.multinomial(w, 1), (weights,))
    (y,) = MLXInterpreter(program, {}).run(to_mlx(weights))
    assert y.tolist() == [[1], [2]]
