"""Axis orders: the channels-last one, and what an order makes of axes, shapes and hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import torch.fx

Perm = tuple[int, ...]


def last(ndim: int) -> Perm:
    """PyTorch's axes in channels-last order."""
    return (0, *range(2, ndim), 1)


def first(ndim: int) -> Perm:
    """The order that takes channels-last back to channels-first."""
    return (0, ndim - 1, *range(1, ndim - 1))


def channels_last(node: torch.fx.Node) -> Perm:
    """The order in which a node's array is stored if it is channels-last.

    Where a reshape has divided the axes of an image, `meta["last"]` has the order that its parts come in.
    """
    return node.meta.get("last") or last(rank(node))


def inverse(perm: Perm) -> Perm:
    """The order that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def identity(ndim: int) -> Perm:
    """The order that changes nothing."""
    return tuple(range(ndim))


def ordered(values: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    """One value per axis, in another order of the axes."""
    return tuple(values[axis] for axis in perm)


def rank(value: Any) -> int:
    """The number of axes of a node's array (of the first one of several); 0 for anything else."""
    hint = value.meta.get("hint") if isinstance(value, torch.fx.Node) else None
    if isinstance(hint, list | tuple):
        hint = hint[0] if hint else None
    return hint.ndim if isinstance(hint, mx.array) else 0


def nbytes(node: torch.fx.Node) -> int:
    """The size of a node's arrays for the example inputs."""
    hints = node.meta["hint"]
    return sum(
        h.nbytes for h in (hints if isinstance(hints, list | tuple) else [hints])
    )


def transposed(hint: Any, perm: Perm) -> Any:
    """A lazy array, or a list of them, with its axes in another order."""
    if isinstance(hint, list | tuple):
        return [transposed(h, perm) for h in hint]
    return mx.transpose(hint, perm)


def permutation(node: torch.fx.Node) -> Perm | None:
    """The axis order of an `mx.transpose` node; None for other nodes."""
    if node.target is not mx.transpose:
        return None
    ndim = rank(node)
    axes: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("axes")
    if axes is None:
        return tuple(reversed(range(ndim)))
    return tuple(axis % ndim for axis in axes)
