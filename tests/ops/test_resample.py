"""Interpolation, grid sampling and windows as columns, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import run_lowered

IMAGE = torch.randn(2, 3, 6, 5)
SHAPES = {"linear": (2, 3, 7), "trilinear": (2, 3, 4, 5, 3)}
MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{"scale_factor": 2}, {"scale_factor": 1.7}, {"size": 4}, {"size": 9}]
)
def test_interpolate(mode: str, options: dict[str, Any]) -> None:
    x = torch.randn(SHAPES.get(mode, tuple(IMAGE.shape)))
    run_lowered(
        lambda x: F.interpolate(x, mode=mode, **options),
        (x,),
        dynamic=False,
        tolerance=2e-5,
    )
    if not mode.startswith("nearest"):
        aligned = {**options, "align_corners": True}
        run_lowered(
            lambda x: F.interpolate(x, mode=mode, **aligned),
            (x,),
            dynamic=False,
            tolerance=2e-5,
        )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (9, 2), (1, 8)])
def test_antialiased(mode: str, size: tuple[int, int]) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size, mode=mode, antialias=True)

    run_lowered(function, (IMAGE,), tolerance=2e-5)


def test_recomputed_scale() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(
            x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True
        )

    run_lowered(function, (IMAGE,), dynamic=False, tolerance=2e-5)


def test_varying_sizes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    run_lowered(function, (IMAGE,), (torch.randn(3, 3, 4, 7),), tolerance=2e-5)


def test_to_the_size_of_another() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, y.shape[2:], mode="bilinear") + y

    args = (IMAGE, torch.randn(2, 3, 11, 13))
    run_lowered(function, args, (IMAGE, torch.randn(2, 3, 8, 9)), tolerance=2e-5)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding: str, align_corners: bool) -> None:
    grid = torch.rand(2, 4, 3, 2) * 3 - 1.5

    def function(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, mode, padding, align_corners)

    run_lowered(function, (IMAGE, grid), tolerance=5e-5)


def test_grid_sample_of_volumes() -> None:
    x, grid = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 2, 3, 4, 3) * 3 - 1.5
    run_lowered(
        lambda x, g: F.grid_sample(x, g, align_corners=False), (x, grid), tolerance=5e-5
    )


@pytest.mark.parametrize("align_corners", [True, False])
def test_affine_grid(align_corners: bool) -> None:
    theta = torch.randn(2, 2, 3)
    run_lowered(lambda t: F.affine_grid(t, [2, 3, 4, 5], align_corners), (theta,))


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"stride": (1, 2)}]
)
def test_unfold_and_fold(options: dict[str, Any]) -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        return F.fold(F.unfold(x, (3, 2), **options), (6, 5), (3, 2), **options)

    run_lowered(lambda x: F.unfold(x, (3, 2), **options), (IMAGE,))
    run_lowered(there_and_back, (IMAGE,), dynamic=False)
