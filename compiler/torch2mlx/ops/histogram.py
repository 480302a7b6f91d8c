"""Histograms of one and of several dimensions."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.histogram.bin_ct)
def histogram(
    x: Any,
    bins: int = 100,
    range: Any = None,
    weight: Any = None,
    density: bool = False,
) -> Any:
    """How many numbers lie in each of `bins` equal parts, and the edges of these."""
    hist, edges = histogramdd(x.reshape(-1, 1), [bins], range, weight, density)
    return [hist, edges[0]]


@lowers(aten.histogram.bins_tensor)
def histogram_edges(
    x: Any, bins: Any, weight: Any = None, density: bool = False
) -> Any:
    """How many numbers lie between the edges `bins`, and these."""
    return [_counts(x.reshape(-1, 1), [bins], weight, density), bins]


@lowers(aten.histogramdd.default)
def histogramdd(
    x: Any, bins: Any, range: Any = None, weight: Any = None, density: bool = False
) -> Any:
    """How many points [..., D] lie in each cell of a grid, and its edges."""
    edges = [
        (
            helpers.bin_edges(x[..., axis], count)
            if range is None
            else mx.linspace(*range[2 * axis : 2 * axis + 2], count + 1)
        )
        for axis, count in enumerate(bins)
    ]
    return [_counts(x, edges, weight, density), edges]


@lowers(aten.histogramdd.int_bins)
def histogramdd_int(
    x: Any,
    bins: int,
    range: Any = None,
    weight: Any = None,
    density: bool = False,
) -> Any:
    """How many points [..., D] lie in each cell of a grid, and its edges."""
    return histogramdd(x, [bins] * x.shape[-1], range, weight, density)


@lowers(aten.histogramdd.TensorList_bins)
def histogramdd_edges(
    x: Any, bins: Any, weight: Any = None, density: bool = False
) -> Any:
    """How many points [..., D] lie in each cell between the edges `bins`, and these."""
    return [_counts(x, bins, weight, density), bins]


def _counts(x: Any, edges: Any, weight: Any, density: bool) -> Any:
    options = {"density": True} if density else {}
    if weight is not None:
        options["weight"] = weight.reshape(-1)
    return helpers.histogram(_points(x, len(edges)), list(edges), **options)


def _points(x: Any, dimensions: int) -> Any:
    return x if x.ndim == 2 else x.reshape(_count(x), dimensions)


def _count(x: Any) -> Any:
    total: Any = 1
    for size in x.shape[:-1]:
        total = total * size
    return total
