"""Parts of arrays by position, and padding, their opposite."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch

from torch2mlx.lower.facade import Refuse, Traced, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.lower.sizes import SIZE_FUNCTIONS
from torch2mlx.ops.axes import FULL, at, same

aten = torch.ops.aten

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@lowers(aten.slice.Tensor, aten.slice_copy.Tensor)
def slice_(
    x: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Any:
    """`x[:, start:end:step]`, or `x` where that is all of it."""
    part = _slice(x.shape[dim], start, end, step)
    return x if part is FULL else x[at(x.ndim, dim, part)]


def _slice(size: Any, start: Any, end: Any, step: Any) -> slice:
    """A slice of an axis without bounds that bound nothing; `FULL` where none is left."""
    if isinstance(start, int) and start == 0:
        start = None
    if end is not None and _reaches(end, size):
        end = None
    step = None if same(step, 1) else step
    bounds = (start, end, step)
    return FULL if all(bound is None for bound in bounds) else slice(*bounds)


def _reaches(end: Any, size: Any) -> bool:
    if isinstance(end, int) and end >= 2**31:
        return True
    try:
        return bool(end >= size) if isinstance(end, int | Traced) else False
    except Refuse:
        return False


@lowers(aten.narrow.default, aten.narrow_copy.default)
def narrow(x: Any, dim: int, start: Any, length: Any) -> Any:
    """`x[:, start:start + length]`."""
    if isinstance(start, int) and start < 0:
        start = x.shape[dim] + start
    elif isinstance(start, Traced) and start.node.meta.get("evaluates"):
        start = start % x.shape[dim]  # it may be negative
    return slice_(x, dim, start, start + length)


@lowers(aten.select.int, aten.select_copy.int)
def select(x: Any, dim: int, index: Any) -> Any:
    """`x[:, index]`."""
    return x[at(x.ndim, dim, index)]


@lowers(aten.unbind.int, aten.unbind_copy.int)
def unbind(x: Any, dim: int = 0) -> Any:
    """Every `x[:, i]`."""
    return [x[at(x.ndim, dim, i)] for i in range(_fixed(x.shape[dim]))]


@lowers(aten.split.Tensor, aten.split_copy.Tensor, aten.unsafe_split.Tensor)
def split(x: Any, split_size: Any, dim: int = 0) -> Any:
    """`mx.split` into parts of one size, the last one perhaps smaller."""
    size = x.shape[dim]
    if same(split_size, size) or same(size, 0):
        return [x]
    if (count := _ratio(size, split_size)) is not None:
        return _equal_parts(x, count, dim)
    step = _fixed(split_size)
    if isinstance(size, Traced):
        return _parts(x, step, dim)
    return _split(x, [min(step, size - i) for i in range(0, size, step)], dim)


@lowers(
    aten.split_with_sizes.default,
    aten.split_with_sizes_copy.default,
    aten.unsafe_split_with_sizes.default,
)
def split_with_sizes(x: Any, split_sizes: Any, dim: int = 0) -> Any:
    """`mx.split` into parts of the sizes given."""
    return _split(x, list(split_sizes), dim)


@lowers(aten.split.sizes)
def split_sizes(x: Any, split_size: Any, dim: int = 0) -> Any:
    """`mx.split` into parts of the sizes given."""
    return _split(x, list(split_size), dim)


@lowers(aten.chunk.default, aten.unsafe_chunk.default)
def chunk(x: Any, chunks: int, dim: int = 0) -> Any:
    """`mx.split` into parts of one size, the last one perhaps smaller."""
    size: Any = x.shape[dim]
    if not isinstance(size, int):
        if _divides(chunks, size):
            return _equal_parts(x, chunks, dim)
        return _parts(x, -(-size // chunks), dim)
    if size == 0:
        return [x] * chunks
    return split(x, -(-size // chunks), dim)


@lowers(aten._chunk_cat.default)
def chunk_cat(tensors: Any, dim: int, num_chunks: int) -> Any:
    """The i-th chunks of all arrays, padded with 0 and flattened, joined: along `dim + 1`."""
    parts = []
    for tensor in tensors:
        axis = dim % tensor.ndim
        missing = -tensor.shape[axis] % num_chunks
        widths = [0, 0] * (tensor.ndim - axis - 1) + [0, missing]
        padded = pad_(tensor, widths)
        parts.append(padded.reshape(*tensor.shape[:axis], num_chunks, -1))
    return mx.concatenate(parts, axis=dim % tensors[0].ndim + 1)


@lowers(aten.tensor_split.sections)
def tensor_split(x: Any, sections: int, dim: int = 0) -> Any:
    """`mx.split` into parts whose sizes differ by at most one."""
    size: Any = x.shape[dim]
    if not isinstance(size, int):
        if _divides(sections, size):
            return _equal_parts(x, sections, dim)
        least = SIZE_FUNCTIONS[torch.sym_min]
        each, more = size // sections, size % sections
        starts = [each * i + least(more, i) for i in range(1, sections)]
        return list(mx.split(x, starts, **_axis(dim)))
    more = size % sections
    sizes = [size // sections + (i < more) for i in range(sections)]
    return _split(x, sizes, dim)


@lowers(aten.tensor_split.indices)
def tensor_split_at(x: Any, indices: Any, dim: int = 0) -> Any:
    """The parts between some positions."""
    return [slice_(x, dim, start, end) for start, end in pairwise([0, *indices, None])]


@lowers(aten.hsplit.int)
def hsplit(x: Any, sections: int) -> Any:
    """Equal parts along the second axis; of vectors along the first."""
    return _equal_parts(x, sections, 0 if x.ndim == 1 else 1)


@lowers(aten.hsplit.array)
def hsplit_at(x: Any, indices: Any) -> Any:
    """Parts along the second axis; of vectors along the first."""
    return tensor_split_at(x, indices, 0 if x.ndim == 1 else 1)


@lowers(aten.vsplit.int)
def vsplit(x: Any, sections: int) -> Any:
    """Equal parts along the first axis."""
    return _equal_parts(x, sections, 0)


@lowers(aten.vsplit.array)
def vsplit_at(x: Any, indices: Any) -> Any:
    """Parts along the first axis."""
    return tensor_split_at(x, indices, 0)


@lowers(aten.dsplit.int)
def dsplit(x: Any, sections: int) -> Any:
    """Equal parts along the third axis."""
    return _equal_parts(x, sections, 2)


@lowers(aten.dsplit.array)
def dsplit_at(x: Any, indices: Any) -> Any:
    """Parts along the third axis."""
    return tensor_split_at(x, indices, 2)


@lowers(aten.slice_scatter.default)
def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Any:
    """`x` with `src` written to a slice of it; `src` where that is all of it."""
    part = _slice(x.shape[dim], start, end, step)
    if part is FULL:
        return src
    return helpers.assign(x, at(x.ndim, dim, part), src)


@lowers(aten.select_scatter.default)
def select_scatter(x: Any, src: Any, dim: int, index: Any) -> Any:
    """`x` with `src` written at one position of an axis."""
    return helpers.assign(x, at(x.ndim, dim, index), src)


@lowers(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """`mx.diagonal`."""
    return mx.diagonal(x, offset, dim1, dim2)


@lowers(aten.linalg_diagonal.default)
def linalg_diagonal(A: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """`mx.diagonal`, of the last two axes by default."""
    return mx.diagonal(A, offset, dim1, dim2)


@lowers(aten.diagonal_scatter.default)
def diagonal_scatter(
    x: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Any:
    """`x` with `src` written to a diagonal."""
    length = src.shape[-1]
    rows = mx.arange(max(-offset, 0), max(-offset, 0) + length)
    columns = mx.arange(max(offset, 0), max(offset, 0) + length)
    last = (x.ndim - 2, x.ndim - 1)
    y = _moved(x, (dim1, dim2), last)
    y = helpers.assign(y, (..., rows, columns), src)
    return _moved(y, last, (dim1, dim2))


@lowers(aten.diag_embed.default)
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices with the last axis of `x` on a diagonal."""
    last = (x.ndim - 1, x.ndim)
    return _moved(helpers.diag_embed(x, offset), last, (dim1, dim2))


@lowers(aten.diag.default)
def diag(x: Any, diagonal: int = 0) -> Any:
    """`mx.diag`."""
    return mx.diag(x, diagonal) if diagonal else mx.diag(x)


@lowers(aten.diagflat.default)
def diagflat(x: Any, offset: int = 0) -> Any:
    """`mx.diag` of all elements."""
    return diag(x if x.ndim == 1 else x.reshape(-1), offset)


@lowers(aten.tril.default)
def tril(x: Any, diagonal: int = 0) -> Any:
    """`mx.tril`."""
    return mx.tril(x, diagonal) if diagonal else mx.tril(x)


@lowers(aten.triu.default)
def triu(x: Any, diagonal: int = 0) -> Any:
    """`mx.triu`."""
    return mx.triu(x, diagonal) if diagonal else mx.triu(x)


@lowers(aten.constant_pad_nd.default)
def constant_pad(x: Any, pad: Any, value: Any = 0) -> Any:
    """`mx.pad`."""
    return pad_(x, pad, "constant", value)


@lowers(aten.pad.default)
def pad_(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """`mx.pad`; negative widths cut off, and "circular" joins what is on the other side."""
    widths = [(0, 0)] * x.ndim
    for axis, start in zip(
        range(x.ndim - 1, -1, -1), range(0, len(pad), 2), strict=False
    ):
        widths[axis] = (pad[start], pad[start + 1])
    grown = [tuple(0 if _negative(w) else w for w in pair) for pair in widths]
    if mode == "circular":
        x = _cut(x, widths)
        for axis, (before, after) in enumerate(grown):
            x = _wrapped(x, axis, before, after)
        return x
    if any(not (isinstance(w, int) and w == 0) for pair in grown for w in pair):
        arguments: dict[str, Any] = {} if mode == "constant" else {"mode": MODES[mode]}
        if value:
            arguments["constant_values"] = value
        x = mx.pad(x, tuple(grown), **arguments)
    return _cut(x, widths)


def _negative(width: Any) -> bool:
    return isinstance(width, int) and width < 0


def _cut(x: Any, widths: list[tuple[Any, Any]]) -> Any:
    """`x` without what negative widths take away."""
    for axis, pair in enumerate(widths):
        if any(map(_negative, pair)):
            start, end = (w if _negative(w) else None for w in pair)
            part = slice(None if start is None else -start, end)
            x = x[at(x.ndim, axis, part)]
    return x


def _wrapped(x: Any, axis: int, before: Any, after: Any) -> Any:
    parts = [x]
    if not same(before, 0):
        parts.insert(0, x[at(x.ndim, axis, slice(-before, None))])
    if not same(after, 0):
        parts.append(x[at(x.ndim, axis, slice(None, after))])
    return mx.concatenate(parts, axis=axis) if len(parts) > 1 else x


def _moved(x: Any, source: tuple[int, int], destination: tuple[int, int]) -> Any:
    """`x` with two axes moved."""
    from torch2mlx.ops.shape import movedim

    return movedim(x, source, destination)


def _split(x: Any, sizes: list[Any], dim: int) -> Any:
    if len(sizes) == 1:
        return [x]
    if all(same(size, sizes[0]) for size in sizes) and not same(sizes[0], 0):
        return list(mx.split(x, len(sizes), **_axis(dim)))
    return list(mx.split(x, list(accumulate(sizes[:-1])), **_axis(dim)))


def _equal_parts(x: Any, sections: int, dim: int) -> Any:
    return list(mx.split(x, sections, **_axis(dim)))


def _parts(x: Any, step: Any, dim: int) -> Any:
    """Parts of a varying axis; torch.export fixes how many there are, not how long the last is."""
    length, each = (getattr(n, "hint", n) for n in (x.hint.shape[dim], step))
    starts = [step * i for i in range(1, -(-length // each))]
    return list(mx.split(x, starts, **_axis(dim)))


def _axis(dim: int) -> dict[str, int]:
    return {"axis": dim} if dim else {}


def _fixed(size: Any) -> int:
    if not isinstance(size, int):
        raise Refuse("an axis of varying size in a fixed number of parts is not mapped")
    return size


def _ratio(size: Any, step: Any) -> int | None:
    """How many steps of varying size a size has, if that is one number for all."""
    if not (isinstance(size, Traced) and isinstance(step, Traced)):
        return None
    whole, part = (n.node.meta.get("expr") for n in (size, step))
    if whole is None or part is None or not (whole / part).is_Integer:
        return None
    return int(whole / part)


def _divides(number: int, size: Traced) -> bool:
    expr = size.node.meta.get("expr")
    return expr is not None and (expr / number).is_integer is True
