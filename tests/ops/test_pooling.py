"""Pooling that is no layer, and adaptive pooling, against PyTorch."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered

IMAGES = {1: (2, 3, 12), 2: (2, 3, 11, 10), 3: (2, 3, 7, 8, 9)}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "ceil_mode": True, "padding": 1},
        {"dilation": 2},
        {"stride": 1, "padding": 1, "dilation": 2},
    ],
)
def test_max_pool(axes: int, options: dict[str, Any]) -> None:
    pool = getattr(F, f"max_pool{axes}d")
    x = torch.randn(IMAGES[axes])
    run_lowered(
        lambda x: pool(x, 3, **options), (x,), (x[:1].repeat(3, *[1] * (axes + 1)),)
    )
    run_lowered(lambda x: pool(x, 3, **options, return_indices=True), (x,))
    run_lowered(lambda x: pool(x[0], 3, **options), (x,))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "ceil_mode": True},
        {"stride": 2, "ceil_mode": True, "padding": 1, "count_include_pad": False},
        {"padding": 1, "count_include_pad": False},
    ],
)
def test_avg_pool(axes: int, options: dict[str, Any]) -> None:
    pool = getattr(F, f"avg_pool{axes}d")
    run_lowered(lambda x: pool(x, 3, **options), (torch.randn(IMAGES[axes]),))


def test_divisor() -> None:
    run_lowered(
        lambda x: F.avg_pool2d(x, 2, divisor_override=3), (torch.randn(IMAGES[2]),)
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_adaptive_pools(axes: int, size: int) -> None:
    x = torch.randn(IMAGES[axes])
    other = torch.randn(3, 3, *[n + 1 for n in x.shape[2:]])
    run_lowered(
        lambda x: getattr(F, f"adaptive_avg_pool{axes}d")(x, size), (x,), (other,)
    )
    run_lowered(lambda x: getattr(F, f"adaptive_max_pool{axes}d")(x, size), (x,))
    run_lowered(
        lambda x: getattr(F, f"adaptive_max_pool{axes}d")(
            x[0], size, return_indices=True
        ),
        (x,),
    )


def test_adaptive_sizes_per_axis() -> None:
    x = torch.randn(IMAGES[2])
    for size in ((1, None), (3, 1), (None, 4)):
        run_lowered(
            lambda x, size=size: F.adaptive_avg_pool2d(x, size), (x,), dynamic=False
        )


def test_pooling_to_one_is_a_mean_and_to_the_same_size_nothing() -> None:
    x = torch.randn(2, 3, 7, 7)

    def calls(size: int) -> list[Any]:
        graph = lowered(
            lambda x: F.adaptive_avg_pool2d(x, size), (x,), dynamic=False
        ).graph
        return [n for n in graph.nodes if n.op == "call_function"]

    (mean,) = calls(1)
    assert mean.target is mx.mean
    assert mean.kwargs == {"axis": (2, 3), "keepdims": True}
    assert not calls(7)


def test_unpool() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        values, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values, places, 2)

    run_lowered(function, (torch.randn(2, 3, 6, 8),))
