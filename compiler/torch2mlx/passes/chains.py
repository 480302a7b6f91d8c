"""What views, permutes, selects and splits make of a value, and the nodes that say the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.index_map import IndexMap, Shape
from torch2mlx.passes.views import PERMUTES, RESHAPES, axis_order

aten = torch.ops.aten

# Operators that may leave the shape as it is are views too
VIEWS = RESHAPES | {aten.contiguous.default}
CUTS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default}


def is_rearrangement(node: torch.fx.Node) -> bool:
    """Whether a node is a view or a permute."""
    return node.target in VIEWS or node.target in PERMUTES


@dataclass(frozen=True)
class Made:
    """A node to be made.

    Attributes:
        kind: view, unsqueeze, permute, select, unbind, cut (into parts) or item (one of the parts).
        source: The node that it takes, or what has to be made for it.
        args: The arguments, sizes as expressions.
    """

    kind: str
    source: Source
    args: tuple[Any, ...]


Source = torch.fx.Node | Made


@dataclass(frozen=True)
class Value:
    """`map` of `source`."""

    source: Source
    map: IndexMap

    def nodes(self) -> Source:
        """The nodes to be made for this value, each in its `source`."""
        made, shape = self.source, self.map.source_shape
        for step in self.map.steps():
            if step.order is not None:
                made = Made("permute", made, step.order)
                shape = tuple(shape[axis] for axis in step.order)
                continue
            assert step.shape is not None
            new = new_axes(shape, step.shape)
            for axis in new or ():
                made = Made("unsqueeze", made, (axis,))
            if not new:
                made = Made("view", made, step.shape)
            shape = step.shape
        return made

    @property
    def cost(self) -> int:
        """How many nodes have to be made for it."""
        return count_nodes([self.nodes()])


def count_nodes(sources: Iterable[Source]) -> int:
    """How many nodes have to be made, shared ones once."""
    found: set[Made] = set()
    for source in sources:
        while isinstance(source, Made):
            found.add(source)
            source = source.source
    return len(found)


class Tree:
    """What views, permutes, selects and splits make of one value.

    Args:
        captured: The model.
        root: The value.
        start: How it is rearranged first.

    Attributes:
        inner: The nodes of the tree, the first value not among them.
        leaves: The nodes among these, or the first value, that something else uses.
        origins: Selects, cuts and items -> the captured nodes that they stand for.
    """

    def __init__(self, captured: Captured, root: torch.fx.Node, start: IndexMap):
        self.captured = captured
        self.root = root
        self.inner: list[torch.fx.Node] = []
        self.leaves: dict[torch.fx.Node, Value] = {}
        self.origins: dict[Made, torch.fx.Node] = {}
        self._follow(root, Value(root, start))

    def _follow(self, node: torch.fx.Node, value: Value) -> None:
        for user in node.users:
            if user.args[:1] != (node,):  # as the second argument of reshape_as
                self.leaves[node] = value
                continue
            if self._divided(user, value):
                continue
            result = self._select(user, value) or mapped(self.captured, user, value)
            if result is None:
                self.leaves[node] = value
            else:
                self.inner.append(user)
                self._follow(user, result)

    def _select(self, node: torch.fx.Node, value: Value) -> Value | None:
        if node.target is not aten.select.int:
            return None
        _, dim, index = node.args
        return self._selected(node, node.all_input_nodes[0], value, dim, index)

    def _divided(self, node: torch.fx.Node, value: Value) -> bool:
        """Follow all results of a call that divides the value along an axis, if all can be."""
        if node.target is aten.unbind.int:
            dim = node.args[1] if len(node.args) > 1 else 0
            parts = {
                u: self._selected(u, node, value, dim, u.args[1]) for u in node.users
            }
        elif node.target in CUTS and len(node.args) == 3:
            parts = {u: self._cut(u, node, value) for u in node.users}
        else:
            return False
        if None in parts.values():
            return False
        self.inner += [node, *parts]
        for user, part in parts.items():
            assert part is not None
            self._follow(user, part)
        return True

    def _cut(
        self, node: torch.fx.Node, cut: torch.fx.Node, value: Value
    ) -> Value | None:
        dim: Any = cut.args[2]
        axis = dim % len(value.map.target)
        found = value.map.resized(axis, shape_of(self.captured, node)[axis])
        if found is None:
            return None
        along, rest = found
        parts = cut.args[1]
        parts = tuple(parts) if isinstance(parts, list) else parts
        whole = Made("cut", value.source, (cut.target, parts, along))
        return self._item(whole, cut, node.args[1], node, rest)

    def _selected(
        self,
        node: torch.fx.Node,
        stacked: torch.fx.Node,
        value: Value,
        dim: Any,
        index: Any,
    ) -> Value | None:
        axis = dim % len(value.map.target)
        found = value.map.selected(axis) if isinstance(index, int) else None
        if found is None:
            return None
        index %= found.number
        if not found.whole:
            cut = Made(
                "cut", value.source, (aten.chunk.default, found.number, found.axis)
            )
        elif stacked.target is aten.unbind.int:
            cut = Made("unbind", value.source, (found.axis,))
        else:
            part = Made("select", value.source, (found.axis, index))
            self._stands_for(part, node)
            return Value(part, found.rest)
        return self._item(cut, stacked, index, node, found.rest)

    def _item(
        self,
        cut: Made,
        cut_origin: torch.fx.Node,
        index: Any,
        origin: torch.fx.Node,
        rest: IndexMap,
    ) -> Value:
        part = Made("item", cut, (index,))
        self._stands_for(cut, cut_origin)
        self._stands_for(part, origin)
        return Value(part, rest)

    def _stands_for(self, made: Made, node: torch.fx.Node) -> None:
        # Of calls that do the same the first, before all that reads any of their results.
        self.origins[made] = min(node, self.origins.get(made, node))


def mapped(captured: Captured, node: torch.fx.Node, value: Value) -> Value | None:
    """What a view or permute makes of a value; None for other nodes, and where it is not certain."""
    if node.target in VIEWS:
        result = value.map.reshaped(shape_of(captured, node))
    elif node.target in PERMUTES:
        result = value.map.permuted(axis_order(node))
    else:
        return None
    return None if result is None else Value(value.source, result)


def shape_of(captured: Captured, node: torch.fx.Node) -> Shape:
    """The sizes of an array as expressions."""
    return tuple(captured.expr(size) for size in node.meta["val"].shape)


def new_axes(shape: Shape, wider: Shape) -> list[int] | None:
    """The axes of size 1 that `wider` has in addition to those of `shape`, if that is the difference."""
    rest = list(shape)
    new = []
    for axis, size in enumerate(wider):
        if rest and rest[0] == size:
            rest.pop(0)
        elif size == 1:
            new.append(axis)
        else:
            return None
    return None if rest else new
