"""`x[...]` of channels-last arrays."""

from __future__ import annotations

import itertools
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.layout.absorbed import Absorbed, stored_in
from torch2mlx.layout.perms import channels_last, identity, last, ordered, rank
from torch2mlx.lower.facade import map_values


def item(node: torch.fx.Node, captured: Captured) -> Absorbed | None:
    """`x[...]` with slices, numbers and None; one of several arrays."""
    x: Any
    x, index = node.args
    ndim = rank(x)
    if isinstance(x.meta["hint"], list | tuple):
        if ndim < 3:
            return None
        stored_in(node, channels_last(x))
        return Absorbed(node.target, node.args, {}, [x], True)
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(_is_array(part) for part in parts) or not ndim or "last" in x.meta:
        return None
    full = _expanded(parts, ndim)
    axes = itertools.count()
    sources = [None if part is None else next(axes) for part in full]
    of_axis = {a: part for a, part in zip(sources, full, strict=True) if a is not None}
    # The axes of the result: those of x that are not dropped, and None for new ones.
    result = [a for a in sources if a is None or isinstance(of_axis[a], slice)]
    for before in _orders(ndim):
        kept = [a for a in before if isinstance(of_axis[a], slice)]
        for after in _orders(len(result)):
            is_last = after != identity(len(result))
            stored = ordered(result, after)
            if [a for a in stored if a is not None] == kept and (
                is_last or before != identity(ndim)
            ):
                new = _merged(stored, [of_axis[a] for a in before])
                operands = [x] if before != identity(ndim) else []
                return Absorbed(node.target, (x, new), {}, operands, is_last)
    return None


def _orders(ndim: int) -> list[tuple[int, ...]]:
    """The orders that an array may be stored in, channels-last first."""
    return [last(ndim), identity(ndim)] if ndim > 2 else [identity(ndim)]


def _is_array(part: Any) -> bool:
    found: list[bool] = []
    map_values(
        lambda v: found.append(isinstance(v, torch.fx.Node) and not _is_size(v)), part
    )
    return any(found) or isinstance(part, mx.array | list | bool)


def _is_size(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("hint"), int)


def _expanded(parts: list[Any], ndim: int) -> list[Any]:
    """An index with a slice or number for every axis."""
    missing = ndim - sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * missing
    for i, part in enumerate(parts):
        if part is Ellipsis:
            return [*parts[:i], *rest, *parts[i + 1 :]]
    return [*parts, *rest]


def _merged(stored: tuple[int | None, ...], parts: list[Any]) -> Any:
    """The index of the stored array: its parts, with None where the result has a new axis."""
    index: list[Any] = []
    kept = iter(stored)
    for part in parts:
        if isinstance(part, slice):
            # The result's next axis of x is this one; new axes stand before it.
            index.extend(None for _ in itertools.takewhile(lambda a: a is None, kept))
        index.append(part)
    index.extend(None for axis in kept if axis is None)
    while len(index) > 1 and index[-1] == slice(None):
        index.pop()
    return index[0] if len(index) == 1 else tuple(index)
