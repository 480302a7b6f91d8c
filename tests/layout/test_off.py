"""Without the assignment, transposes stand around every convolution; with it, there are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch2mlx
from tests.program import check
from torch2mlx.errors import InputError


def test_layout_off() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    x = torch.randn(2, 3, 8, 7)
    program = check(model, (x,), disable=["layout"])
    assert program.source.count(".transpose(0, 2, 3, 1)") >= 2
    assert len(program.report.transposes) == 4
    why = {transpose.why for transpose in program.report.transposes}
    assert why == {"aten.conv2d.default is channels-last in MLX"}
    assert {t.module for t in program.report.transposes} == {"0", "2"}
    assert "channels last" not in program.source
    assert not torch2mlx.compile(model, (x,)).report.transposes


def test_unknown_pass() -> None:
    with pytest.raises(InputError, match="no pass 'layouts'; the passes are .*layout"):
        torch2mlx.compile(nn.ReLU(), (torch.ones(2),), disable=["layouts"])
