"""Operators whose results have sizes, or are numbers, that depend on values: evaluated at run time."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import same, same_shape

aten = torch.ops.aten


@lowers(aten.item.default, aten._local_scalar_dense.default)
def item(x: Any) -> Any:
    """`x.item()`."""
    return x.item()


@lowers(aten.nonzero.default, aten.argwhere.default)
def argwhere(x: Any) -> Any:
    """The indices of what is not 0, one row for each; of an array without axes, rows of none."""
    return helpers.argwhere(x) if x.ndim else helpers.argwhere(x[None])[:, :0]


@lowers(aten.nonzero_static.default)
def nonzero_static(x: Any, size: Any, fill_value: int = -1) -> Any:
    """A fixed number of these rows."""
    fill = {} if fill_value == -1 else {"fill": fill_value}
    if x.ndim:
        return helpers.argwhere_static(x, size, **fill)
    return helpers.argwhere_static(x[None], size)[:, :0]


@lowers(aten.nonzero_numpy.default)
def nonzero_numpy(x: Any) -> Any:
    """The indices of what is not 0, one array for each axis."""
    return helpers.nonzero(x if x.ndim else x[None])


@lowers(aten.where.default)
def where(condition: Any) -> Any:
    """The indices of what is not 0, one array for each axis."""
    return nonzero_numpy(condition)


@lowers(aten.masked_select.default)
def masked_select(x: Any, mask: Any) -> Any:
    """The elements where a mask is set, after broadcasting."""
    if not same_shape(x.shape, mask.shape):
        x, mask = mx.broadcast_arrays(x, mask)
    return select(x, mask)


def select(x: Any, mask: Any, axis: int = 0) -> Any:
    """`x[:, mask]`, for any number of axes in front."""
    if not mask.ndim:
        x, mask = mx.expand_dims(x, axis), mask[None]
    return helpers.masked_select(x, mask, *([axis] if axis else []))


@lowers(aten._unique2.default)
def unique(
    x: Any,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> Any:
    """The different elements, in order; which of them each element is; their counts."""
    parts = helpers.unique(_flat(x))
    return _asked(x, parts, return_inverse, return_counts)


@lowers(aten._unique.default)
def unique_old(x: Any, sorted: bool = True, return_inverse: bool = False) -> Any:
    """The different elements, in order, and which of them each element is."""
    return unique(x, sorted, return_inverse)[:2]


@lowers(aten.unique_dim.default)
def unique_dim(
    x: Any,
    dim: int,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> Any:
    """The different parts along an axis, in order; which of them each part is; their counts."""
    return list(helpers.unique(x, *_axis(x, dim)))


@lowers(aten.unique_consecutive.default)
def unique_consecutive(
    x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    """The first of each run of equal elements or parts; the run of each; their lengths."""
    if dim is not None:
        return list(helpers.unique_consecutive(x, *_axis(x, dim)))
    parts = helpers.unique_consecutive(_flat(x))
    return _asked(x, parts, return_inverse, return_counts)


@lowers(aten.unique_dim_consecutive.default)
def unique_dim_consecutive(
    x: Any, dim: int, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The first of each run of equal parts along an axis; the run of each; their lengths."""
    return unique_consecutive(x, return_inverse, return_counts, dim)


def _axis(x: Any, dim: int) -> list[int]:
    """The axis as a further argument, where it is not the first."""
    return [dim % x.ndim] if dim % x.ndim else []


def _flat(x: Any) -> Any:
    return x if x.ndim == 1 else x.flatten()


def _asked(x: Any, parts: Any, inverse: bool, counts: bool) -> list[Any]:
    """Values, inverse and counts of all elements; PyTorch returns nothing for what it was not asked for."""
    values, places, times = parts
    nothing = mx.zeros((0,), mlx.core.int32)
    if x.ndim != 1:
        places = places.reshape(*x.shape)
    return [values, places if inverse else nothing, times if counts else nothing]


@lowers(aten.bincount.default)
def bincount(x: Any, weights: Any = None, minlength: Any = 0) -> Any:
    """How often each number occurs."""
    given = {"weights": weights, "minlength": minlength}
    defaults = {"weights": None, "minlength": 0}
    return helpers.bincount(
        x, **{k: v for k, v in given.items() if v is not defaults[k]}
    )


@lowers(aten.repeat_interleave.Tensor)
def repeated(repeats: Any, output_size: Any = None) -> Any:
    """Each index as often as it says there."""
    return helpers.repeated(repeats, *([] if output_size is None else [output_size]))


@lowers(aten.repeat_interleave.self_Tensor)
def repeat_interleave(
    x: Any, repeats: Any, dim: Any = None, output_size: Any = None
) -> Any:
    """Each part along an axis as often as it says there."""
    if dim is None:
        x, dim = x.flatten(), 0
    x = x if x.ndim else x[None]
    if not repeats.ndim or same(repeats.shape[0], 1):
        repeats = mx.broadcast_to(repeats, (x.shape[dim],))
    total = [] if output_size is None else [output_size]
    return helpers.repeat_interleave(x, repeats, dim % x.ndim, *total)


@lowers(aten.tensor_split.tensor_indices_or_sections)
def split_at(x: Any, tensor_indices_or_sections: Any, dim: int = 0) -> Any:
    """The parts between some positions."""
    indices = tensor_indices_or_sections
    if not indices.ndim:
        raise Refuse("the number of parts depends on a value")
    axis = [] if dim == 0 else [dim % x.ndim]
    return list(helpers.split_at(x, indices, *axis))
