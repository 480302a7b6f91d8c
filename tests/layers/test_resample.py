"""Upsampling layers against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered

IMAGES = {1: (2, 3, 5), 2: (2, 3, 5, 4), 3: (2, 3, 3, 4, 2)}


@pytest.mark.parametrize(
    ("axes", "options", "is_layer"),
    [
        (1, {"scale_factor": 2, "mode": "nearest"}, True),
        (2, {"scale_factor": 3, "mode": "nearest"}, True),
        (2, {"scale_factor": (2, 3), "mode": "nearest"}, True),
        (3, {"scale_factor": 2, "mode": "nearest"}, True),
        (1, {"scale_factor": 2, "mode": "linear"}, True),
        (2, {"scale_factor": 2, "mode": "bilinear"}, True),
        (2, {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, True),
        (3, {"scale_factor": 2, "mode": "trilinear"}, True),
        (2, {"scale_factor": 1.7, "mode": "nearest"}, False),
        (2, {"scale_factor": 0.6, "mode": "bilinear"}, False),
        (2, {"size": (7, 9), "mode": "nearest"}, False),
        (2, {"size": (7, 9), "mode": "bilinear", "align_corners": True}, False),
        (2, {"scale_factor": 2, "mode": "bicubic"}, False),
    ],
)
def test_upsample(axes: int, options: dict[str, Any], is_layer: bool) -> None:
    model = nn.Upsample(**options)
    x = torch.randn(IMAGES[axes])
    run_lowered(model, (x,), (torch.randn(3, *x.shape[1:]),))
    assert lowered(model, (x,)).layers == ({"Upsample": 1} if is_layer else {})
