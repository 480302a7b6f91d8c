"""Convolution layers against PyTorch, with every constructor argument changed."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.lowering import lowered, run_lowered

IMAGES = {1: (2, 4, 9), 2: (2, 4, 9, 8), 3: (2, 4, 6, 5, 7)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"dilation": 2},
        {"bias": False},
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": "same", "kernel_size": 2},
        {"padding": "same", "kernel_size": 2, "dilation": 3},
        {"stride": 2, "padding": 2, "dilation": 2, "bias": False},
    ],
)
def test_conv(axes: int, options: dict[str, Any]) -> None:
    model = CONV[axes](4, 6, **{"kernel_size": 3, **options})
    x = torch.randn(IMAGES[axes])
    run_lowered(model, (x,), (torch.randn(3, *x.shape[1:]),))
    assert lowered(model, (x,)).layers == {f"Conv{axes}d": 1}


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    x = torch.randn(IMAGES[2])
    run_lowered(nn.Conv2d(4, 8, 3, groups=groups), (x,))
    assert lowered(nn.Conv1d(4, 8, 3, groups=groups), (x[..., 0],)).layers == {
        "Conv1d": 1
    }


def test_different_sizes_per_axis() -> None:
    model = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    run_lowered(model, (torch.randn(IMAGES[2]),))


def test_groups_over_three_axes_are_no_layer() -> None:
    for model in (
        nn.Conv3d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose3d(4, 8, 3, stride=2, output_padding=1, groups=2),
    ):
        x = torch.randn(IMAGES[3])
        run_lowered(model, (x,))
        assert not lowered(model, (x,)).layers


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"dilation": 2},
        {"bias": False},
        {"stride": 2, "output_padding": 1, "padding": 1},
        {"stride": 3, "dilation": 2, "padding": 2, "output_padding": 2},
    ],
)
def test_conv_transpose(axes: int, options: dict[str, Any]) -> None:
    model = TRANSPOSED[axes](4, 6, 3, **options)
    x = torch.randn(IMAGES[axes])
    run_lowered(model, (x,), (torch.randn(3, *x.shape[1:]),))
    assert lowered(model, (x,)).layers == {f"ConvTranspose{axes}d": 1}


def test_transposed_groups_are_no_layer() -> None:
    for axes in (1, 2):
        model = TRANSPOSED[axes](4, 6, 3, stride=2, padding=1, groups=2)
        x = torch.randn(IMAGES[axes])
        run_lowered(model, (x,))
        assert not lowered(model, (x,)).layers


def test_transposed_padding_beyond_the_kernel() -> None:
    model = nn.ConvTranspose2d(4, 3, 1, stride=2, padding=2, output_padding=1)
    x = torch.randn(IMAGES[2])
    run_lowered(model, (x,))
    assert not lowered(model, (x,)).layers


def test_image_without_a_batch() -> None:
    run_lowered(nn.Conv2d(4, 6, 3), (torch.randn(4, 9, 8),))
    run_lowered(nn.ConvTranspose1d(4, 6, 3), (torch.randn(4, 9),))


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_with_output_padding(padding: int, groups: int) -> None:
    """MLX's own `output_padding` gives the input's gradient another shape."""
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(
        4, 6, 3, stride=2, padding=padding, output_padding=1, groups=groups
    )
    x = torch.randn(IMAGES[2], requires_grad=True)
    program = torch2mlx.compile(model, (x.detach(),), io_layout="torch")
    module = program.load()
    torch.sin(model(x)).sum().backward()
    assert x.grad is not None
    found = mx.grad(lambda x: mx.sum(mx.sin(module(x))))(mx.array(x.detach().numpy()))
    np.testing.assert_allclose(np.array(found), x.grad, rtol=1e-4, atol=1e-4)
