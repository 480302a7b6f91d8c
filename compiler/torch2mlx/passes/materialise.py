"""Create the nodes of rewritten chains; sizes are taken from nodes that have them."""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.chains import Made, Source, new_axes, shape_of
from torch2mlx.passes.index_map import Shape
from torch2mlx.passes.rewrite import call

aten = torch.ops.aten


class Materialiser:
    """Appends nodes to the graph of a captured model.

    Args:
        captured: The model.
    """

    def __init__(self, captured: Captured):
        self.captured = captured
        self.sizes: dict[sympy.Expr, torch.fx.Node] = {}
        for node in captured.graph.nodes:
            if isinstance(node.meta.get("val"), torch.SymInt):
                self.sizes.setdefault(captured.expr(node.meta["val"]), node)

    def make(
        self,
        source: Source,
        here: torch.fx.Node,
        root: torch.fx.Node,
        origins: dict[Made, torch.fx.Node],
        made: dict[Made, torch.fx.Node],
    ) -> torch.fx.Node:
        """The node of `source`, with those that it needs.

        Args:
            source: What to make.
            here: It is put before this node, and has its origin.
            root: The node at the bottom of `source`, whose sizes may be read.
            origins: What is put before another node, and has that one's origin.
            made: What was made so far.
        """
        if not isinstance(source, Made):
            return source
        if source not in made:
            here = origins.get(source, here)
            x = self.make(source.source, here, root, origins, made)
            made[source] = self._call(source, x, here, root)
        return made[source]

    def _call(
        self, made: Made, x: torch.fx.Node, here: torch.fx.Node, root: torch.fx.Node
    ) -> torch.fx.Node:
        match made.kind, made.args:
            case "view", shape:
                return self._view(x, shape, here, root)
            case "unsqueeze", (axis,):
                return call(here, aten.unsqueeze.default, x, axis)
            case "permute", order:
                axes = [axis for axis, source in enumerate(order) if axis != source]
                if len(axes) == 2:
                    return call(here, aten.transpose.int, x, *axes)
                return call(here, aten.permute.default, x, list(order))
            case "select", (axis, index):
                return call(here, aten.select.int, x, axis, index)
            case "unbind", (axis,):
                return call(here, aten.unbind.int, x, axis)
            case "cut", (overload, parts, axis):
                last = axis == x.meta["val"].ndim - 1
                parts = list(parts) if isinstance(parts, tuple) else parts
                return call(here, overload, x, parts, -1 if last else axis)
            case _, (index,):
                return call(here, operator.getitem, x, index)
        raise AssertionError(made)

    def _view(
        self, x: torch.fx.Node, shape: Shape, here: torch.fx.Node, root: torch.fx.Node
    ) -> torch.fx.Node:
        dropped = new_axes(shape, shape_of(self.captured, x))
        if dropped and len(dropped) == 1:
            return call(here, aten.squeeze.dim, x, *dropped)
        if dropped:
            return call(here, aten.squeeze.dims, x, dropped)
        own = shape_of(self.captured, root)
        sizes: list[Any] = []
        for size in shape:
            found = self._size(size, here)
            if found is None and size in own:
                axis = own.index(size)
                found = self.sizes[size] = call(here, aten.sym_size.int, root, axis)
            sizes.append(-1 if found is None else found)
        return call(here, aten.reshape.default, x, sizes)

    def _size(
        self, size: sympy.Expr, here: torch.fx.Node
    ) -> int | torch.fx.Node | None:
        """A size as an argument of a node before `here`, where it is known there."""
        if size.is_Integer:
            return int(size)
        node = self.sizes.get(size)
        return node if node is not None and node < here else None

    def feasible(self, plan: dict[torch.fx.Node, Source], root: torch.fx.Node) -> bool:
        """Whether the sizes of all views can be written, at most one of them as -1.

        Args:
            plan: Nodes, and what is to be made before each.
            root: The node that all of it is made from.
        """
        own = shape_of(self.captured, root)
        for here, source in plan.items():
            while isinstance(source, Made):
                sizes = source.args if source.kind == "view" else ()
                unknown = [
                    s for s in sizes if s not in own and self._size(s, here) is None
                ]
                if len(unknown) > 1:
                    return False
                source = source.source
        return True
