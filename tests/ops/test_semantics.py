"""Where MLX's semantics differ from PyTorch's: each difference that was measured, on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.lowering import run_lowered

NAN, INF = float("nan"), float("inf")
F, I = torch.float32, torch.int64


def t(values: Any, dtype: torch.dtype = F) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


Case = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]
CASES: dict[str, Case] = {
    # Type promotion: an array without axes counts less than one with axes; MLX has no such rule
    "a float16 array times a float32 number": (
        lambda x, s: x * s,
        (t([1.0, 2.0], torch.float16), t(2.5)),
    ),
    "an int array plus a float number": (lambda x, s: x + s, (t([1, 2], I), t(0.5))),
    "an int32 array plus an int64 array": (
        lambda x, y: x + y,
        (t([2**31 - 1], torch.int32), t([1], I)),
    ),
    "a bool array plus an int": (lambda x: x + 1, (t([True, False], torch.bool),)),
    "uint8 and int8": (
        lambda x, y: x + y,
        (t([200], torch.uint8), t([-100], torch.int8)),
    ),
    "int8 keeps its width": (lambda x: x + x, (t([100], torch.int8),)),
    "float16 and bfloat16": (
        lambda x, y: x + y,
        (t([1.0], torch.float16), t([2.0], torch.bfloat16)),
    ),
    "an int larger than int32": (lambda x: x + 2**40, (t([1], I),)),
    "where of an int and a float": (
        lambda c, x: torch.where(c, x, 0.5),
        (t([True, False], torch.bool), t([1, 2], I)),
    ),
    # Integer division
    "ints divided truly": (lambda x, y: x / y, (t([7, -7], I), t([2, 2], I))),
    "ints divided down": (lambda x, y: x // y, (t([7, -7], I), t([2, 2], I))),
    "ints divided towards zero": (
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        (t([7, -7, 2**53 + 1], I), t([2, 2, 1], I)),
    ),
    "remainders have the divisor's sign": (
        lambda x, y: (x % y, torch.fmod(x, y)),
        (t([7, -7, 7, -7], I), t([3, 3, -3, -3], I)),
    ),
    "float remainders": (
        lambda x, y: (torch.remainder(x, y), torch.fmod(x, y)),
        (t([5.5, -5.5, 5.5, -5.5, -5.0]), t([2.0, 2.0, -2.0, -2.0, INF])),
    ),
    # Dtypes of indices, which are unsigned in MLX
    "argmax less one": (lambda x: torch.argmax(x, -1) - 1, (t([[3.0, 1.0]]),)),
    "argsort less two": (lambda x: torch.argsort(x, -1) - 2, (t([[3.0, 1.0, 2.0]]),)),
    "topk descends": (lambda x: torch.topk(x, 2), (t([1.0, 4.0, 3.0, 2.0]),)),
    # NaN
    "NaN wins in max and min": (
        lambda x: (x.amax(-1), x.amin(-1), x.max(-1).values),
        (t([[1.0, NAN, 3.0], [1.0, 2.0, 3.0]]),),
    ),
    "NaN wins in maximum, loses in fmax": (
        lambda x, y: (torch.maximum(x, y), torch.fmax(x, y), torch.fmin(x, y)),
        (t([1.0, NAN, 3.0]), t([NAN, 2.0, 1.0])),
    ),
    "NaN is sorted last, and first when descending": (
        lambda x: (x.sort().values, x.sort(descending=True).values),
        (t([2.0, NAN, 1.0, INF]),),
    ),
    "the sign of NaN and of zeros": (torch.sign, (t([NAN, -0.0, 0.0, -2.0]),)),
    "NaN equals nothing": (lambda x: (x == x, x != x), (t([1.0, NAN]),)),
    # Variance divides by n - 1 unless told otherwise
    "variance": (
        lambda x: (x.var(), x.std(0), x.var(0, correction=0), x.var(1, unbiased=False)),
        (t([[1.0, 2.0, 4.0], [0.0, 5.0, 7.0]]),),
    ),
    # Indices
    "negative indices": (
        lambda x, i: (
            x[i],
            x[-1],
            x[:, -2:],
            torch.gather(x, 1, torch.zeros_like(x, dtype=I)),
        ),
        (t([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), t([-1, 0], I)),
    ),
    "a gather smaller than its input is not broadcast": (
        lambda x, i: torch.gather(x, 0, i),
        (t([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), t([[1]], I)),
    ),
    "a slice beyond the end": (lambda x: x[:, 1:100], (t([[1.0, 2.0, 3.0]] * 2),)),
    # Rounding
    "halves are rounded to even": (
        torch.round,
        (t([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999998]),),
    ),
    "rounded to decimals": (lambda x: torch.round(x, decimals=1), (t([0.25, 1.37]),)),
    "to int towards zero": (lambda x: x.to(torch.int32), (t([1.9, -1.9, 0.5]),)),
    # Sums
    "sums of bools are int64": (
        lambda x: (x.sum(), x.sum(0), x.cumsum(0), x.prod()),
        (t([[True, True], [False, True]], torch.bool),),
    ),
    "sums of int32 widen": (
        lambda x: (x.sum(), x.cumsum(0), x.prod()),
        (t([2**31 - 1, 2**31 - 1], torch.int32),),
    ),
    "sums of uint8 widen": (
        lambda x: (x.sum(), x.cumsum(0)),
        (t([200, 200], torch.uint8),),
    ),
    "a mean of float16 does not overflow": (
        lambda x: x.mean(),
        (torch.full((4096,), 100.0, dtype=torch.float16),),
    ),
    "a sum over no axes is one over all": (lambda x: x.sum(dim=()), (t([[1.0, 2.0]]),)),
    # The sign of zero
    "copysign of -0.0": (lambda x: torch.copysign(t(1.0), x), (t([-0.0, 0.0]),)),
    # Arrays without elements, and without axes
    "empty arrays": (
        lambda x: (x.sum(0), x.prod(0), x.any(0), torch.cat([x, x]), x.mean(0)),
        (torch.zeros(0, 3),),
    ),
    "the argmax of no rows": (lambda x: x.argmax(1), (torch.zeros(0, 3),)),
    "a softmax of no rows": (lambda x: x.softmax(-1), (torch.zeros(0, 3),)),
    "arrays without axes": (
        lambda x: (x.sum(0), x.softmax(-1), x.cumsum(0), x.argmax(0), x.sort(0).values),
        (t(2.0),),
    ),
    # int64 is not narrowed
    "large int64": (
        lambda x: (x * 3, x - 1, x.abs(), x // 7, x % 1000, x.max()),
        (t([2**53 + 1, -(2**60)], I),),
    ),
    "shifts": (lambda x: (x << 3, x >> 2), (t([5, -5, 2**40], I),)),
    "logical not of numbers": (torch.logical_not, (t([0.0, 2.0]),)),
    "bitwise not of bools": (lambda x: ~x, (t([True, False], torch.bool),)),
    "clamp by both": (lambda x: x.clamp(min=3, max=1), (t([0.0, 2.0, 5.0]),)),
    "the lower median": (lambda x: x.median(), (t([1.0, 2.0, 3.0, 4.0]),)),
    "a mask that allows nothing": (
        lambda q, m: torch.nn.functional.scaled_dot_product_attention(q, q, q, m),
        (torch.randn(1, 1, 2, 4), t([[[[True, True], [False, False]]]], torch.bool)),
    ),
    "a causal mask of fewer queries than keys": (
        lambda q, k: torch.nn.functional.scaled_dot_product_attention(
            q, k, k, is_causal=True
        ),
        (torch.randn(1, 1, 2, 4), torch.randn(1, 1, 5, 4)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_semantics(name: str) -> None:
    function, args = CASES[name]
    torch.manual_seed(0)
    run_lowered(function, args, dynamic=False)
