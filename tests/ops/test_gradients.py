"""Gradients through places that are computed: MLX has none with respect to an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import torch2mlx
from tests.lowering import as_module, to_mlx

IMAGE, GRID = torch.randn(2, 3, 5, 6), torch.rand(2, 4, 4, 2) * 2.4 - 1.2
MATRIX = torch.randn(4, 7)


def sampled(mode: str, padding: str = "zeros") -> Callable[..., Any]:
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, align_corners=False)


def turned(x: Any, theta: Any) -> Any:
    grid = F.affine_grid(theta, [2, 3, 4, 4], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "bilinear": (sampled("bilinear"), (IMAGE, GRID)),
    "nearest": (sampled("nearest"), (IMAGE, GRID)),
    "bicubic": (sampled("bicubic", "border"), (IMAGE, GRID)),
    "reflection": (sampled("bilinear", "reflection"), (IMAGE, GRID)),
    "affine": (turned, (IMAGE, 0.3 * torch.randn(2, 2, 3))),
    "median": (lambda x: x.median(1)[0], (MATRIX,)),
    "median of all": (lambda x: x.median(), (MATRIX,)),
    "largest": (lambda x: x.topk(3)[0], (MATRIX,)),
    "largest of a softmax": (lambda x: x.softmax(-1).topk(3)[0], (MATRIX,)),
    "sorted rows": (lambda x: x[x[:, 0].argsort()], (MATRIX,)),
    "quantile": (lambda x: x.quantile(0.3, 1), (MATRIX,)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, args = CASES[name]
    leaves = [x.clone().requires_grad_() for x in args]
    y = function(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad((y * weights).sum(), leaves)
    module = torch2mlx.compile(as_module(function), args, io_layout="torch").load()
    found = mx.grad(
        lambda *xs: mx.sum(module(*xs) * to_mlx(weights)),
        tuple(range(len(args))),
    )(*map(to_mlx, args))
    found = [found] if len(args) == 1 else found
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(have), want, rtol=1e-3, atol=1e-4)
