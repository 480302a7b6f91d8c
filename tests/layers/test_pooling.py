"""Pooling layers against PyTorch, with every constructor argument changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered

IMAGES = {1: (2, 3, 12), 2: (2, 3, 11, 10), 3: (2, 3, 7, 8, 9)}
MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("options", "is_layer"),
    [
        ({}, True),
        ({"stride": 1}, True),
        ({"stride": 2, "padding": 1}, True),
        ({"return_indices": True, "stride": 2}, True),
        ({"ceil_mode": True, "stride": 2}, False),
        ({"dilation": 2}, False),
        ({"dilation": 2, "padding": 1, "ceil_mode": True, "stride": 2}, False),
        ({"return_indices": True, "dilation": 2, "padding": 1}, False),
    ],
)
def test_max_pool(axes: int, options: dict[str, Any], is_layer: bool) -> None:
    model = MAX[axes](3, **options)
    x = torch.randn(IMAGES[axes])
    run_lowered(model, (x,), (torch.randn(3, *x.shape[1:]),))
    assert lowered(model, (x,)).layers == ({f"MaxPool{axes}d": 1} if is_layer else {})


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("options", "is_layer"),
    [
        ({}, True),
        ({"stride": 2}, True),
        ({"padding": 1}, True),
        ({"padding": 1, "count_include_pad": False}, False),
        ({"ceil_mode": True, "stride": 2}, False),
        ({"ceil_mode": True, "stride": 2, "padding": 1}, False),
    ],
)
def test_avg_pool(axes: int, options: dict[str, Any], is_layer: bool) -> None:
    model = AVG[axes](3, **options)
    x = torch.randn(IMAGES[axes])
    run_lowered(model, (x,), (torch.randn(3, *x.shape[1:]),))
    assert lowered(model, (x,)).layers == ({f"AvgPool{axes}d": 1} if is_layer else {})


def test_divisor_is_no_layer() -> None:
    for axes in (2, 3):
        model = AVG[axes](3, divisor_override=5, padding=1, ceil_mode=True, stride=2)
        x = torch.randn(IMAGES[axes])
        run_lowered(model, (x,))
        assert not lowered(model, (x,)).layers


def test_ceil_mode_that_changes_nothing_is_a_layer() -> None:
    x = torch.randn(2, 3, 8, 8)
    for cls in (nn.MaxPool2d, nn.AvgPool2d):
        model = cls(2, ceil_mode=True)
        run_lowered(model, (x,), dynamic=False)
        assert lowered(model, (x,), dynamic=False).layers == {cls.__name__: 1}


def test_different_sizes_per_axis() -> None:
    x = torch.randn(IMAGES[2])
    run_lowered(nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)), (x,))
    run_lowered(nn.AvgPool2d((3, 2), stride=(2, 1), padding=(1, 0)), (x,))


def test_negative_images_with_padding() -> None:
    run_lowered(nn.MaxPool2d(3, padding=1), (-torch.rand(IMAGES[2]) - 1,))
