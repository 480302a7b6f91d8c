"""Integrals and derivatives of samples."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import at

aten = torch.ops.aten

LATER, EARLIER = slice(1, None), slice(None, -1)


@lowers(aten.trapezoid.x, aten.trapz.x)
def trapezoid(y: Any, x: Any, dim: int = -1) -> Any:
    """The integral along `dim` of samples at the coordinates `x`."""
    return _integral(y, _steps(y, x, dim), dim)


@lowers(aten.trapezoid.dx, aten.trapz.dx)
def trapezoid_of_steps(y: Any, dx: float = 1, dim: int = -1) -> Any:
    """The integral along `dim` of samples at distances `dx`."""
    return _integral(y, dx, dim)


@lowers(aten.cumulative_trapezoid.x)
def cumulative_trapezoid(y: Any, x: Any, dim: int = -1) -> Any:
    """The integrals up to each sample after the first."""
    return mx.cumsum(_areas(y, _steps(y, x, dim), dim), axis=dim) / 2


@lowers(aten.cumulative_trapezoid.dx)
def cumulative_trapezoid_of_steps(y: Any, dx: float = 1, dim: int = -1) -> Any:
    """The integrals up to each sample after the first."""
    return mx.cumsum(_areas(y, dx, dim), axis=dim) / 2


@lowers(aten.gradient.scalarint, aten.gradient.scalarrayint)
def gradient(
    x: Any, spacing: Any = None, dim: int | None = None, edge_order: int = 1
) -> Any:
    """The derivatives along one axis, or along all."""
    return _gradient(x, spacing, range(x.ndim) if dim is None else [dim], edge_order)


@lowers(aten.gradient.tensorarrayint)
def gradient_by_coordinates(
    x: Any, spacing: Any, dim: int | None = None, edge_order: int = 1
) -> Any:
    """The derivatives for samples at these coordinates along each axis."""
    return gradient(x, spacing, dim, edge_order)


@lowers(
    aten.gradient.scalararray, aten.gradient.scalarrayarray, aten.gradient.tensorarray
)
def gradient_along(x: Any, spacing: Any, dim: Any, edge_order: int = 1) -> Any:
    """The derivatives along some axes."""
    return _gradient(x, spacing, dim, edge_order)


@lowers(aten.gradient.array)
def gradient_of_steps(x: Any, dim: Any, edge_order: int = 1) -> Any:
    """The derivatives along some axes of samples at a distance of 1."""
    return _gradient(x, None, dim, edge_order)


def _gradient(x: Any, spacing: Any, axes: Any, edge_order: int) -> Any:
    if not isinstance(spacing, list | tuple):
        spacing = [1.0 if spacing is None else spacing] * len(axes)
    order = () if edge_order == 1 else (edge_order,)
    return [
        helpers.gradient(x, step, axis, *order)
        for step, axis in zip(spacing, axes, strict=True)
    ]


def _steps(y: Any, x: Any, dim: int) -> Any:
    """The distances of the coordinates; a vector of them lies along `dim`."""
    if x.ndim == 1:
        steps = x[LATER] - x[EARLIER]
        after = y.ndim - 1 - dim % y.ndim
        return steps.reshape(-1, *(1,) * after) if after else steps
    axis = dim % y.ndim - (y.ndim - x.ndim)
    return x[at(x.ndim, axis, LATER)] - x[at(x.ndim, axis, EARLIER)]


def _areas(y: Any, steps: Any, dim: int) -> Any:
    """Twice the area between neighbours."""
    total = y[at(y.ndim, dim, LATER)] + y[at(y.ndim, dim, EARLIER)]
    return total if isinstance(steps, int | float) and steps == 1 else steps * total


def _integral(y: Any, steps: Any, dim: int) -> Any:
    return mx.sum(_areas(y, steps, dim), axis=dim) / 2
