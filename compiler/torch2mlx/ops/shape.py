"""Reshaping, permuting, joining and repeating."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import at, lowers_any, same, same_shape

aten = torch.ops.aten


@lowers(
    aten.view.default,
    aten._unsafe_view.default,
    aten.view_copy.default,
    aten._reshape_copy.default,
)
def view(x: Any, size: Any) -> Any:
    """`x.reshape(...)`."""
    return reshape(x, size)


@lowers(aten.reshape.default)
def reshape(x: Any, shape: Any) -> Any:
    """`x.reshape(...)`, with -1 for the one size that varies."""
    sizes = list(shape)
    own = x.shape
    if same_shape(sizes, own):
        return x
    free = [i for i, s in enumerate(sizes) if not isinstance(s, int)]
    known = [s for s in (*sizes, *own) if isinstance(s, int)]
    if len(free) == 1 and -1 not in known and 0 not in known:
        sizes[free[0]] = -1
    inferred = [i for i, s in enumerate(sizes) if isinstance(s, int) and s == -1]
    if inferred and 0 in known:
        sizes[inferred[0]] = _quotient(own, sizes)
    return x.reshape(*sizes) if sizes else mx.reshape(x, ())


def _quotient(own: Any, sizes: list[Any]) -> int:
    """The size that -1 stands for in the shape of an empty array."""
    total, rest = 1, 1
    for size in own:
        total *= size
    for size in sizes:
        rest *= size if size != -1 else 1
    return total // rest if rest else 0


@lowers(aten.view_as.default, aten.reshape_as.default)
def reshape_as(x: Any, other: Any) -> Any:
    """`x.reshape(other.shape)`."""
    return reshape(x, other.shape)


@lowers(aten.flatten.using_ints)
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """`x.flatten(start, end)`."""
    if x.ndim == 0:
        return x[None]
    start, end = start_dim % x.ndim, end_dim % x.ndim
    if start == end:
        return x
    if end < x.ndim - 1:
        return mx.flatten(x, start, end)
    return mx.flatten(x, start) if start else mx.flatten(x)


@lowers(aten.ravel.default)
def ravel(x: Any) -> Any:
    """`x.flatten()`."""
    return flatten(x)


@lowers(aten.unflatten.int)
def unflatten(x: Any, dim: int, sizes: Any) -> Any:
    """`mx.unflatten`, with -1 for the one size that varies."""
    sizes = list(sizes)
    free = [i for i, s in enumerate(sizes) if not isinstance(s, int)]
    if len(free) == 1 and -1 not in sizes and 0 not in sizes:
        sizes[free[0]] = -1
    if 0 in x.shape:
        axis = dim % x.ndim
        return reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))
    return mx.unflatten(x, dim, tuple(sizes))


@lowers_any(aten.permute.default, aten.permute_copy.default)
def permute(x: Any, dims: Any) -> Any:
    """`x.transpose(...)`."""
    order = [dim % x.ndim for dim in dims]
    if order == list(range(x.ndim)):
        return x
    return x.T if x.ndim == 2 else x.transpose(*order)


@lowers(aten.transpose.int, aten.transpose_copy.int, aten.swapdims.default)
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """`x.transpose(...)` with two axes exchanged."""
    if x.ndim == 0:
        return x
    order = list(range(x.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(x, order)


@lowers(aten.swapaxes.default)
def swapaxes(x: Any, axis0: int, axis1: int) -> Any:
    """`x.transpose(...)` with two axes exchanged."""
    return transpose(x, axis0, axis1)


@lowers(aten.t.default, aten.t_copy.default, aten.numpy_T.default)
def matrix_transpose(x: Any) -> Any:
    """`x.T`."""
    return x.T if x.ndim > 1 else x


@lowers(aten.mT.default)
def last_two(x: Any) -> Any:
    """The last two axes exchanged."""
    return transpose(x, -2, -1) if x.ndim > 1 else x


@lowers(aten.mH.default, aten.adjoint.default, aten.matrix_H.default)
def adjoint(x: Any) -> Any:
    """The last two axes exchanged, complex numbers conjugated."""
    y = last_two(x)
    return mx.conjugate(y) if x.dtype == mlx.core.complex64 else y


@lowers(
    aten.movedim.intlist,
    aten.moveaxis.intlist,
)
def movedim(x: Any, source: Any, destination: Any) -> Any:
    """`x.transpose(...)` with some axes moved."""
    moved = dict(
        zip(
            (d % x.ndim for d in destination), (s % x.ndim for s in source), strict=True
        )
    )
    rest = iter(axis for axis in range(x.ndim) if axis not in moved.values())
    return permute(x, [moved[i] if i in moved else next(rest) for i in range(x.ndim)])


@lowers(aten.movedim.int, aten.moveaxis.int)
def movedim_int(x: Any, source: int, destination: int) -> Any:
    """`x.transpose(...)` with one axis moved."""
    return movedim(x, [source], [destination])


@lowers_any(aten.unsqueeze.default, aten.unsqueeze_copy.default)
def unsqueeze(x: Any, dim: int) -> Any:
    """`x[:, None]`."""
    axis = dim % (x.ndim + 1)
    return x[None] if axis == 0 else x[at(x.ndim + 1, axis, None)]


@lowers(
    aten.squeeze.dim, aten.squeeze.dims, aten.squeeze_copy.dim, aten.squeeze_copy.dims
)
def squeeze(x: Any, dim: Any) -> Any:
    """`x.squeeze(axis)`, of axes that have size 1."""
    shape = x.shape
    axes = [dim] if isinstance(dim, int) else list(dim)
    found = [axis for axis in axes if x.ndim and same(shape[axis], 1)]
    if not found:
        return x
    return mx.squeeze(x, found[0] if len(found) == 1 else tuple(found))


@lowers(aten.squeeze.default, aten.squeeze_copy.default)
def squeeze_all(x: Any) -> Any:
    """`x.squeeze(axes)`, of every axis that has size 1."""
    return squeeze(x, list(range(x.ndim)))


@lowers_any(aten.expand.default, aten.broadcast_to.default, aten.expand_copy.default)
def broadcast_to(x: Any, size: Any) -> Any:
    """`mx.broadcast_to`, or `x` where it has the shape."""
    new = len(size) - x.ndim
    shape = x.shape
    sizes = [
        shape[i - new] if isinstance(s, int) and s == -1 else s
        for i, s in enumerate(size)
    ]
    return x if same_shape(sizes, shape) else mx.broadcast_to(x, tuple(sizes))


@lowers(aten.expand_as.default)
def expand_as(x: Any, other: Any) -> Any:
    """`mx.broadcast_to` the shape of `other`."""
    return broadcast_to(x, other.shape)


@lowers(aten.broadcast_tensors.default)
def broadcast_tensors(tensors: Any) -> Any:
    """Each array in the shape that they have together."""
    sizes: list[Any] = [1] * max(t.ndim for t in tensors)
    for tensor in tensors:
        for axis, size in zip(range(-tensor.ndim, 0), tensor.shape, strict=True):
            if same(sizes[axis], 1):
                sizes[axis] = size
    return [broadcast_to(t, sizes) for t in tensors]


@lowers(aten.sum_to_size.default)
def sum_to_size(x: Any, size: Any) -> Any:
    """Summed over the axes that `size` lacks, or has once."""
    new = x.ndim - len(size)
    shape = x.shape
    ones = [
        new + i
        for i, s in enumerate(size)
        if same(s, 1) and not same(shape[new + i], 1)
    ]
    if ones:
        x = mx.sum(x, axis=tuple(ones), keepdims=True)
    return mx.sum(x, axis=tuple(range(new))) if new else x


@lowers_any(aten.cat.default, aten.concat.default, aten.concatenate.default)
def concatenate(tensors: Any, dim: int = 0) -> Any:
    """`mx.concatenate`; PyTorch skips arrays of shape [0] whatever the rank of the others."""
    parts = [t for t in tensors if t.ndim != 1 or not same(t.shape[0], 0)]
    parts = parts or list(tensors)[:1]
    if len(parts) == 1:
        return parts[0]
    return mx.concatenate(parts, **({"axis": dim} if dim else {}))


@lowers(aten.stack.default)
def stack(tensors: Any, dim: int = 0) -> Any:
    """`mx.stack`."""
    return mx.stack(list(tensors), **({"axis": dim} if dim else {}))


@lowers(aten.hstack.default)
def hstack(tensors: Any) -> Any:
    """Joined along the second axis; vectors along the first."""
    parts = [atleast_1d(t) for t in tensors]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


@lowers(aten.vstack.default, aten.row_stack.default)
def vstack(tensors: Any) -> Any:
    """Joined along the first axis, vectors as rows."""
    return concatenate([atleast_2d(t) for t in tensors], 0)


@lowers(aten.dstack.default)
def dstack(tensors: Any) -> Any:
    """Joined along the third axis."""
    return concatenate([atleast_3d(t) for t in tensors], 2)


@lowers(aten.column_stack.default)
def column_stack(tensors: Any) -> Any:
    """Joined along the second axis, vectors as columns."""
    return concatenate(
        [t if t.ndim > 1 else atleast_1d(t)[:, None] for t in tensors], 1
    )


@lowers(aten.atleast_1d.default)
def atleast_1d(x: Any) -> Any:
    """`x` with one axis at least."""
    return x if x.ndim else x[None]


@lowers(aten.atleast_2d.default)
def atleast_2d(x: Any) -> Any:
    """`x` with two axes at least; vectors become rows."""
    return x if x.ndim > 1 else atleast_1d(x)[None]


@lowers(aten.atleast_3d.default)
def atleast_3d(x: Any) -> Any:
    """`x` with three axes at least."""
    return x if x.ndim > 2 else atleast_2d(x)[..., None]


@lowers(aten.atleast_1d.Sequence)
def atleast_1d_each(tensors: Any) -> Any:
    """`atleast_1d` of each."""
    return [atleast_1d(t) for t in tensors]


@lowers(aten.atleast_2d.Sequence)
def atleast_2d_each(tensors: Any) -> Any:
    """`atleast_2d` of each."""
    return [atleast_2d(t) for t in tensors]


@lowers(aten.atleast_3d.Sequence)
def atleast_3d_each(tensors: Any) -> Any:
    """`atleast_3d` of each."""
    return [atleast_3d(t) for t in tensors]


@lowers(aten.repeat.default)
def repeat(x: Any, repeats: Any) -> Any:
    """`mx.tile`."""
    if len(repeats) == x.ndim and all(isinstance(r, int) and r == 1 for r in repeats):
        return x
    if any(isinstance(r, int) and r == 0 for r in repeats):
        sizes = (*[1] * (len(repeats) - x.ndim), *x.shape)
        sizes = tuple(r * s for r, s in zip(repeats, sizes, strict=True))
        return mx.zeros(sizes, x.dtype)
    return mx.tile(x, tuple(repeats)) if repeats else x


@lowers(aten.tile.default)
def tile(x: Any, dims: Any) -> Any:
    """`mx.tile`."""
    return repeat(x, [*[1] * (x.ndim - len(dims)), *dims])


@lowers(aten.repeat_interleave.self_int)
def repeat_interleave(
    x: Any, repeats: Any, dim: Any = None, output_size: Any = None
) -> Any:
    """`mx.repeat`."""
    if isinstance(repeats, int) and repeats == 1 and dim is not None:
        return x
    return mx.repeat(x, repeats, **({} if dim is None else {"axis": dim}))


@lowers(aten.roll.default)
def roll(x: Any, shifts: Any, dims: Any = ()) -> Any:
    """`mx.roll`."""
    if not x.ndim:
        return x
    if not dims:
        return mx.roll(x, shifts[0])
    if len(dims) == 1:
        return mx.roll(x, shifts[0], axis=dims[0])
    return mx.roll(x, tuple(shifts), axis=tuple(dims))


@lowers(aten.flip.default)
def flip(x: Any, dims: Any) -> Any:
    """`x[::-1]`, along some axes."""
    axes = {dim % x.ndim for dim in dims} if x.ndim else set()
    if not axes:
        return x
    back = slice(None, None, -1)
    index = [back if axis in axes else slice(None) for axis in range(max(axes) + 1)]
    return x[index[0] if len(index) == 1 else tuple(index)]


@lowers(aten.fliplr.default)
def fliplr(x: Any) -> Any:
    """`x[:, ::-1]`."""
    return flip(x, [1])


@lowers(aten.flipud.default)
def flipud(x: Any) -> Any:
    """`x[::-1]`."""
    return flip(x, [0])


@lowers_any(aten.meshgrid.indexing, aten.meshgrid.default)
def meshgrid(tensors: Any, indexing: str = "ij") -> Any:
    """`mx.meshgrid`, whose own default is "xy"."""
    parts = [t if t.ndim else t[None] for t in tensors]
    arguments = {} if indexing == "xy" else {"indexing": indexing}
    return list(mx.meshgrid(*parts, **arguments))


@lowers(aten.unfold.default, aten.unfold_copy.default)
def unfold(x: Any, dimension: int, size: int, step: int) -> Any:
    """Windows of one axis, as a new last axis."""
    if not x.ndim:
        return x[None] if size else mx.zeros((0,), x.dtype)
    axis = dimension % x.ndim
    length: Any = x.shape[axis]
    if isinstance(length, int) and size == step and length % size == 0:
        y = mx.unflatten(x, axis, (-1, size))
    else:
        starts = mx.arange(0, length - size + 1, step)[:, None]
        y = mx.take(x, starts + mx.arange(size), axis=axis)
    return y if axis == x.ndim - 1 else mx.moveaxis(y, axis + 1, -1)


@lowers(aten.pixel_shuffle.default)
def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """[*, C r r, H, W] -> [*, C, H r, W r]."""
    *lead, channels, height, width = x.shape
    r, n = upscale_factor, len(lead)
    y = x.reshape(*lead, channels // (r * r), r, r, height, width)
    y = y.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return y.reshape(*lead, channels // (r * r), height * r, width * r)


@lowers(aten.pixel_unshuffle.default)
def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """[*, C, H r, W r] -> [*, C r r, H, W]."""
    *lead, channels, height, width = x.shape
    r, n = downscale_factor, len(lead)
    y = x.reshape(*lead, channels, height // r, r, width // r, r)
    y = y.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return y.reshape(*lead, channels * r * r, height // r, width // r)


@lowers_any(aten.channel_shuffle.default, aten.native_channel_shuffle.default)
def channel_shuffle(x: Any, groups: int) -> Any:
    """The channels of [N, C, *S] dealt out to the groups in turn."""
    batch, channels, *sizes = x.shape
    y = mx.unflatten(x, 1, (groups, channels // groups))
    y = y.transpose(0, 2, 1, *range(3, y.ndim))
    return y.reshape(batch, channels, *sizes)
