"""Convolutions of computed weights against PyTorch, in one to three axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered

IMAGES = {1: (2, 4, 9), 2: (2, 4, 9, 8), 3: (2, 4, 6, 5, 7)}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
        {"padding": "same", "dilation": 2},
    ],
)
def test_conv(axes: int, options: dict[str, Any]) -> None:
    conv = getattr(F, f"conv{axes}d")
    x = torch.randn(IMAGES[axes])
    weight = torch.randn(6, 4 // options.get("groups", 1), *[3] * axes)
    args = (x, weight, torch.randn(6))
    run_lowered(lambda x, w, b: conv(x, w * 1.5, b, **options), args, tolerance=2e-5)
    run_lowered(lambda x, w: conv(x[0], w, **options), args[:2], tolerance=2e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_even_kernel_pads_more_behind() -> None:
    x, weight = torch.randn(IMAGES[2]), torch.randn(3, 4, 2, 4)
    run_lowered(
        lambda x, w: F.conv2d(x, w, padding="same"), (x, weight), tolerance=2e-5
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"dilation": 2},
        {"groups": 2, "stride": 2},
        {"padding": 3, "stride": 2},
    ],
)
def test_conv_transpose(axes: int, options: dict[str, Any]) -> None:
    conv = getattr(F, f"conv_transpose{axes}d")
    x = torch.randn(IMAGES[axes])
    weight = torch.randn(4, 6 // options.get("groups", 1), *[3] * axes)
    run_lowered(
        lambda x, w, b: conv(x, w * 1.5, b, **options),
        (x, weight, torch.randn(6)),
        tolerance=2e-5,
    )


def test_computed_weights_are_no_layer() -> None:
    x, weight = torch.randn(IMAGES[2]), torch.randn(3, 4, 3, 3)
    assert not lowered(F.conv2d, (x, weight)).layers
