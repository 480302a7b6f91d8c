"""Numbers that half precision cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torch2mlx
from tests.aten import check, ops
from torch2mlx.arrays import from_numpy
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.wide_numbers import wide_numbers

X = torch.tensor([0.0, 1.0, -2.0, 6e-5, 0.5])


class Function(torch.nn.Module):
    def __init__(self, function: Callable[[Any], Any]):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (1 - x) * -1e9,
        lambda x: x * 7e4,
        lambda x: x / 1e-6,
        lambda x: x * 2e-6,
        lambda x: x + 7e4 - 7e4,
        lambda x: 1e5 - x,
    ],
    ids=["mask", "mul", "div", "small", "add", "rsub"],
)
def test_as_pytorch(function: Callable[[Any], Any]) -> None:
    x = X.half()
    wanted = function(x).float().numpy()
    program = torch2mlx.compile(Function(function), (x,))
    found = program.load()(from_numpy(x.numpy()))
    np.testing.assert_allclose(np.array(found, np.float32), wanted, rtol=2e-3)


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: x * 6e4, torch.float16),
        (lambda x: x + 1e-6, torch.float16),
        (lambda x: x + 7e4, torch.float16),
        (lambda x: x * float("-inf"), torch.float16),
        (lambda x: x * 7e4, torch.bfloat16),
        (lambda x: x * 7e4, torch.float32),
    ],
    ids=["held", "small addend", "large addend", "infinite", "bfloat16", "float32"],
)
def test_left_alone(function: Callable[[Any], Any], dtype: torch.dtype) -> None:
    passes = (functionalise, wide_numbers)
    assert "to" not in ops(check(passes, function, (X.to(dtype),)))
