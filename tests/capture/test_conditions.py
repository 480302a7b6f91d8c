"""For which sizes a graph is the model: the author's branches, and what PyTorch itself refuses."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.capture.modules import Branch, Forward
from torch2mlx.capture import capture


def taller_than_40(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] > 40 else x + 1


def at_most_60(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] <= 60 else x + 1


def twelve_patches(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] // 4 == 12 else x + 1


def not_twelve_patches(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] // 4 != 15 else x + 1


def divisible(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] % 4 == 0 else x + 1


def square(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] == x.shape[3] else x + 1


def large(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[2] * x.shape[3] > 2000 else x + 1


def between(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if 45 <= x.shape[2] < 60 else x + 1


BRANCHES: dict[Forward, dict[tuple[int, int], str]] = {
    taller_than_40: {(20, 51): "x must have H >= 41, not 20", (41, 30): ""},
    at_most_60: {(61, 50): "x must have H <= 60, not 61", (60, 50): ""},
    twelve_patches: {
        (47, 50): "x must have 48 <= H <= 51, not 47",
        (52, 50): "x must have 48 <= H <= 51, not 52",
        (51, 50): "",
    },
    not_twelve_patches: {
        (61, 50): "x must be [B, C, H, W] with H // 4 != 15, not [2, 3, 61, 50]",
        (64, 50): "",
        (59, 50): "",
    },
    divisible: {
        (50, 48): "x must be [B, C, H, W] with H % 4 == 0, not [2, 3, 50, 48]",
        (52, 47): "",
    },
    square: {
        (50, 52): "x must be [B, C, H, H], not [2, 3, 50, 52]",
        (50, 50): "",
    },
    large: {
        (40, 50): "x must be [B, C, H, W] with W * H > 2000, not [2, 3, 40, 50]",
        (20, 101): "",
    },
    between: {(44, 9): "x must have 45 <= H <= 59, not 44", (59, 9): ""},
}


class Masked(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != mask.shape[1]:
            mask = mask.mean(1, keepdim=True)
        return x + mask.sum(1, keepdim=True)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("forward", BRANCHES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("io_layout", ["torch", "mlx"])
def test_branch_on_sizes(forward: Forward, io_layout: Any) -> None:
    """The generated code has one side of the branch, and refuses the sizes of the other."""
    program = torch2mlx.compile(
        Branch(forward), (random(2, 3, 48, 48),), io_layout=io_layout
    )
    module = program.load()
    for (height, width), message in BRANCHES[forward].items():
        x = random(2, 3, height, width)
        if message:
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                module(mx.array(x.numpy()))
        else:
            found = np.array(module(mx.array(x.numpy())))
            assert np.allclose(found, forward(x).numpy())
    note = program.report.notes[-1]
    assert "the model compares sizes at" in note
    assert f"{__file__}:{forward.__code__.co_firstlineno + 1}: return" in note
    assert program.verify().ok


def test_two_inputs_of_one_size() -> None:
    example = random(2, 7), random(2, 7)
    module = torch2mlx.compile(Masked(), example).load()
    x, y = (mx.array(random(2, size).numpy()) for size in (5, 4))
    assert module(x, x).shape == (2, 5)
    with pytest.raises(ValueError, match=r"x must be .*\] and mask must be .* and "):
        module(x, y)


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5)
        self.fc = nn.Linear(6 * 14 * 14, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.fc(torch.flatten(x, 1))


def test_what_a_linear_layer_takes() -> None:
    """No branch, but PyTorch refuses other sizes: so do we, and not MLX in the middle of it."""
    model = LeNet().eval()
    program = torch2mlx.compile(model, (random(2, 1, 32, 32),), io_layout="torch")
    module = program.load()
    with pytest.raises(ValueError, match=r"^x must have 32 <= H <= 33, not 28$"):
        module(mx.zeros((2, 1, 28, 28)))
    x = random(3, 1, 32, 33)
    with torch.no_grad():
        expected = model(x)
    assert np.allclose(np.array(module(mx.array(x.numpy()))), expected, atol=1e-5)
    sizes = "`x.shape[2]` must be 32 to 33 and `x.shape[3]` must be 32 to 33"
    assert program.report.notes == [f"{sizes}: PyTorch refuses other sizes"]


def test_one_size_that_is_left_is_fixed() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if 47 < x.shape[2] < 49 else x + 1

    program = torch2mlx.compile(Branch(forward), (random(2, 3, 48, 48),))
    assert program.report.inputs[0].startswith("x: float32 [B, C, 48, W]")
    with pytest.raises(ValueError, match=r"x must be \[B, C, 48, W\], not "):
        program.load()(mx.zeros((2, 3, 50, 48)))


def test_nothing_to_check() -> None:
    """What PyTorch compares on its way to a result is no condition."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1))
    captured = capture(model.eval(), (random(2, 3, 33, 33),))
    found = captured.minima, captured.bounds, captured.conditions, captured.equal
    assert found == ({}, {}, [], [])
    assert captured.notes == []


class Squeeze(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.squeeze(-1)


def test_an_axis_that_the_example_has_not() -> None:
    """At this size squeeze drops an axis; at another it would not."""
    layers = (nn.Conv2d(3, 4, 8, 8), nn.MaxPool2d(3, 2))
    model = nn.Sequential(*layers, Squeeze())
    program = torch2mlx.compile(model.eval(), (random(2, 3, 32, 32),))
    module = program.load()
    assert module(mx.zeros((3, 32, 32, 3))).shape == (3, 1, 4)
    with pytest.raises(ValueError, match=r"^input must be \[B, H, 32, 3\], not "):
        module(mx.zeros((3, 32, 96, 3)))
    (note,) = program.report.notes
    why = "squeeze drops an axis of size 1 at"
    assert note.startswith(f"`input.shape[3]` must be 32: {why} {__file__}:")


def test_an_axis_that_is_merged() -> None:
    """torch.export gives the result of flatten the size of the other axis."""
    layers = (nn.Conv2d(3, 4, 8, 8), nn.MaxPool2d(3, 2), nn.Flatten(2))
    program = torch2mlx.compile(nn.Sequential(*layers), (random(2, 3, 32, 32),))
    module = program.load()
    assert module(mx.zeros((3, 56, 39, 3))).shape == (3, 4, 3)
    with pytest.raises(ValueError, match=r"^input must have 24 <= W <= 39, not 96$"):
        module(mx.zeros((3, 32, 96, 3)))


@pytest.mark.parametrize("side", [24, 40, 96])
def test_a_size_of_1_inside(side: int) -> None:
    """A feature map of one pixel fixes nothing; sympy cannot solve for its size."""
    layers = (nn.Conv2d(3, 4, 8, 8), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(3))
    model = nn.Sequential(*layers).eval()
    program = torch2mlx.compile(model, (random(2, 3, 32, 32),), io_layout="torch")
    assert program.report.notes == []
    x = random(3, 3, side, side)
    with torch.no_grad():
        expected = model(x)
    found = np.array(program.load()(mx.array(x.numpy())))
    assert np.allclose(found, expected, atol=1e-5)


class Resized(nn.Module):
    """Nothing in it has a weight: a condition alone fixes the size of the last axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=1.7, mode="area")


def test_conditions_with_real_numbers() -> None:
    """`floor(1.7 * n)` is no comparison of whole numbers; the size that is fixed for it is checked."""
    program = torch2mlx.compile(Resized(), (random(2, 3, 4),), io_layout="torch")
    module = program.load()
    with pytest.raises(ValueError, match=r"^x must be \[B, T, 4\], not \[2, 3, 5\]$"):
        module(mx.zeros((2, 3, 5)))
    x = random(3, 5, 4)
    assert np.allclose(np.array(module(mx.array(x.numpy()))), Resized()(x), atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "is_checked"),
    [
        ((nn.Linear(4, 5),), False),
        ((nn.ReLU(), nn.Linear(4, 5)), False),
        ((nn.Conv1d(4, 5, 1),), False),
        ((nn.BatchNorm1d(4),), True),
        ((nn.LayerNorm(4),), False),
        ((nn.LayerNorm(4, elementwise_affine=False),), True),
        ((Branch(lambda x: x + torch.arange(4.0)), nn.Linear(4, 5)), True),
    ],
)
def test_sizes_that_a_weight_fixes(
    layers: tuple[nn.Module, ...], is_checked: bool
) -> None:
    """MLX refuses them itself, unless something broadcasts on the way to the layer."""
    is_conv = isinstance(layers[0], nn.Conv1d | nn.BatchNorm1d)
    x = random(2, 4, 6) if is_conv else random(2, 6, 4)
    program = torch2mlx.compile(nn.Sequential(*layers).eval(), (x,), io_layout="torch")
    assert ("must be" in program.source) is is_checked
    with pytest.raises(ValueError):  # noqa: PT011 - whoever it is that refuses
        program.load()(mx.zeros((2, 1, 6) if is_conv else (2, 6, 1)))
