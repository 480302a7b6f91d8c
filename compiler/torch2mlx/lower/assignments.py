"""Writes to parts of arrays as they are written by hand, on the lowered graph.

v = x[1:3]                                     y = assign(x, (slice(1, 3), 0), 2.0)
w = assign(v, (FULL, 0), full((2,), 2.0))  ->
y = assign(x, slice(1, 3), w)
"""

from __future__ import annotations

import operator
from typing import Any, cast

import mlx.core as mx
import torch.fx

from torch2mlx.lower.facade import map_values
from torch2mlx_templates.helpers import assign

FULL = slice(None)
Node = torch.fx.Node
CONSTANTS = {mx.zeros: 0, mx.zeros_like: 0, mx.ones: 1, mx.ones_like: 1}


def merge_assignments(graph: torch.fx.Graph) -> None:
    """Write through slices of slices at once, and numbers as numbers."""
    for node in list(graph.nodes):
        if node.target is assign:
            while _merge(node):
                pass
            node.args = (*node.args[:2], _plain(node.args[2]))
        elif node.target is mx.where:
            node.args = _with_numbers(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)


def _merge(node: Node) -> bool:
    """Whether `node` could take over the write to the part that it writes back."""
    base, index, written = node.args
    if not isinstance(written, Node) or written.target is not assign:
        return False
    part, inner, value = written.args
    if not isinstance(part, Node) or part.target is not operator.getitem:
        return False
    if len(written.users) > 1 or part.args != (base, index):
        return False
    joined = _joined(_parts(index), _parts(inner), base.meta["hint"].ndim)  # type: ignore[union-attr]
    if joined is None:
        return False
    for user in list(part.users):
        if user.target is operator.getitem:
            place = _joined(
                _parts(index), _parts(user.args[1]), base.meta["hint"].ndim  # type: ignore[union-attr]
            )
            if place is not None:
                user.args = (base, place)
    node.args = (base, joined, value)
    return True


def _parts(index: Any) -> list[Any]:
    return list(index) if isinstance(index, tuple) else [index]


def _joined(outer: list[Any], inner: list[Any], ndim: int) -> Any:
    """The index that does one after the other; None where that is not sure to exist."""
    if any(part is None or part is Ellipsis for part in (*outer, *inner)):
        return None
    if any(map(_is_array, outer)) or sum(map(_is_array, inner)) > 1:
        return None
    rest = list(inner)
    joined: list[Any] = []
    for part in [*outer, *[FULL] * (ndim - len(outer))]:
        if not isinstance(part, slice):
            joined.append(part)
            continue
        new = _within(part, rest.pop(0) if rest else FULL)
        if new is None:
            return None
        joined.append(new)
    if any(map(_is_array, joined)) and not all(
        isinstance(part, slice) or _is_array(part) for part in joined
    ):
        return None  # a number beside an array would move axes
    while len(joined) > 1 and joined[-1] == FULL:
        joined.pop()
    return joined[0] if len(joined) == 1 else tuple(joined)


def _is_array(part: Any) -> bool:
    found: list[bool] = []
    map_values(
        lambda v: found.append(
            isinstance(v, mx.array)
            or (isinstance(v, Node) and not isinstance(v.meta["hint"], int))
        ),
        part,
    )
    return any(found)


def _within(outer: slice, inner: Any) -> Any:
    """`x[outer][inner]` as one slice or number; None where that is not sure."""
    if inner == FULL:
        return outer
    if outer == FULL:
        return inner
    start, stop = outer.start or 0, outer.stop
    if outer.step not in (None, 1) or not _is_natural(start):
        return None
    if isinstance(inner, int):
        return start + inner if inner >= 0 else None
    if not isinstance(inner, slice) or not all(
        part is None or _is_natural(part) for part in (inner.start, inner.stop)
    ):
        return None
    first = start + (inner.start or 0)
    end = stop
    if inner.stop is not None:
        end = start + inner.stop
        if stop is not None:
            if not _is_natural(stop):
                return None
            end = min(end, stop)
    return slice(first or None, end, inner.step)


def _is_natural(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _plain(value: Any) -> Any:
    """A value to write, without what the write does anyway: it casts and broadcasts."""
    if not isinstance(value, Node) or value.op != "call_function":
        return value
    if value.target is mx.broadcast_to:
        return _plain(value.args[0])
    if value.target in CONSTANTS:
        return CONSTANTS[value.target]
    if value.target is mx.full and not isinstance(value.args[1], Node):
        return value.args[1]
    return _number(value)


def _number(value: Any) -> Any:
    """The number that an array without axes was made of."""
    is_array = isinstance(value, Node) and value.target is mx.array
    if is_array and isinstance(value.args[0], bool | int | float):
        return value.args[0]
    return value


def _with_numbers(node: Node) -> tuple[Any, ...]:
    """The arguments of `mx.where`, a number for an array where the other one gives the dtype."""
    condition, *choices = cast("list[Any]", node.args)
    for choice, other in (choices, choices[::-1]):
        plain = _number(other) is other and isinstance(other, Node)
        if plain and other.meta["hint"].dtype == node.meta["hint"].dtype:
            choices[choices.index(choice)] = _number(choice)
            break
    return condition, *choices
