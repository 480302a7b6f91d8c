"""Reading by index arrays, and what computes such indices."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import FULL, empty, same
from torch2mlx.ops.dynamic import select

aten = torch.ops.aten


@lowers(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(x: Any, indices: Any) -> Any:
    """`x[i, j]`, or `x[:, mask]`."""
    given = [axis for axis, part in enumerate(indices) if part is not None]
    if len(given) == 1 and indices[given[0]].dtype == mlx.core.bool_:
        return select(x, indices[given[0]], given[0])
    return x[index_of(indices)]


def index_of(indices: Any) -> Any:
    """PyTorch's list of arrays and None as an index."""
    parts = [FULL if i is None else _signed(i) for i in indices]
    while parts and parts[-1] is FULL:
        parts.pop()
    return parts[0] if len(parts) == 1 else tuple(parts)


def _signed(part: Any) -> Any:
    if part.dtype == mlx.core.bool_:
        raise Refuse("a boolean mask beside other indices is not mapped")
    return part


@lowers(aten._unsafe_masked_index.default)
def masked_index(x: Any, mask: Any, indices: Any, fill: Any) -> Any:
    """`x[i, j]` where the mask is set, else `fill`."""
    if empty(x.shape):
        return mx.full(mask.shape, fill, x.dtype)
    return mx.where(mask, x[index_of(clipped(x, indices))], fill)


def clipped(x: Any, indices: Any) -> Any:
    """Indices that lie within `x`."""
    return [
        index if index is None else mx.clip(index, 0, size - 1)
        for index, size in zip(indices, x.shape, strict=False)
    ]


@lowers(aten.index_select.default)
def index_select(x: Any, dim: int, index: Any) -> Any:
    """`mx.take` along an axis."""
    if x.ndim == 0:
        return x
    return mx.take(x, index if index.ndim else index[None], axis=dim)


@lowers(aten.take.default)
def take(x: Any, index: Any) -> Any:
    """`mx.take` of all elements."""
    return mx.take(x.reshape(-1), index)


@lowers(aten.gather.default)
def gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    """`mx.take_along_axis`, of the part of `x` that the index covers."""
    if empty(index.shape):
        return mx.zeros(index.shape, x.dtype)
    if x.ndim == 0 or index.ndim == 0:
        flat = mx.take(x.reshape(-1), index.reshape(-1))
        return flat.reshape(()) if index.ndim == 0 else flat
    part = covered_part(x, dim, index)
    x = x if part is None else x[part]
    return mx.take_along_axis(x, index, axis=dim)


def covered_part(x: Any, dim: int, index: Any, along: bool = False) -> Any:
    """The slices of `x` that an index along an axis covers; None where that is all of it."""
    parts = [FULL] * x.ndim
    sizes = list(zip(x.shape, index.shape, strict=True))
    for axis, (own, size) in enumerate(sizes):
        if (axis != dim % x.ndim or along) and not same(own, size):
            parts[axis] = slice(None, size)
    return None if all(part is FULL for part in parts) else tuple(parts)


@lowers(aten.take_along_dim.default)
def take_along_dim(x: Any, indices: Any, dim: Any = None) -> Any:
    """`mx.take_along_axis`."""
    if dim is None:
        return mx.take(x.reshape(-1), indices.reshape(-1))
    return mx.take_along_axis(x, indices, axis=dim)


@lowers(aten.one_hot.default)
def one_hot(x: Any, num_classes: int = -1) -> Any:
    """`x[..., None] == mx.arange(num_classes)`."""
    if num_classes == -1:
        raise Refuse(
            "argument `num_classes`=-1: the result's size depends on the values"
        )
    return (x[..., None] == mx.arange(num_classes)).astype(mlx.core.int32)


@lowers(aten.bucketize.Tensor)
def bucketize(
    x: Any, boundaries: Any, out_int32: bool = False, right: bool = False
) -> Any:
    """How many boundaries lie below each element."""
    return helpers.searchsorted(boundaries, x, **({"right": True} if right else {}))


@lowers(aten.searchsorted.Tensor)
def searchsorted(
    sorted_sequence: Any,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where each element belongs in a sorted sequence."""
    if sorter is not None:
        sorted_sequence = mx.take_along_axis(sorted_sequence, sorter, axis=-1)
    right = right or side == "right"
    sequence = sorted_sequence
    return helpers.searchsorted(sequence, x, **({"right": True} if right else {}))


@lowers(aten.searchsorted.Scalar)
def searchsorted_scalar(
    sorted_sequence: Any,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where a number belongs in a sorted sequence."""
    number = mx.array(x)
    return searchsorted(sorted_sequence, number, out_int32, right, side, sorter)


@lowers(aten.isin.Tensor_Scalar)
def isin_number(
    elements: Any, test_element: Any, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each element equals a number."""
    return elements != test_element if invert else elements == test_element


@lowers(aten.isin.Tensor_Tensor)
def isin(
    elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each element equals one of the others."""
    found = mx.any(elements[..., None] == test_elements.reshape(-1), axis=-1)
    return ~found if invert else found
