"""From the call tree to segments: what crosses into each module call, and how it reads sizes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import mlx.core as mx
import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.values import is_read
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Layer
from torch2mlx.ir.names import snake_case
from torch2mlx.ir.regions import Region, common, is_inside, region
from torch2mlx.lower.facade import map_values
from torch2mlx.outline.operands import (
    Attr,
    Dim,
    Invoke,
    Item,
    Op,
    Segment,
    SizeOp,
    invokes,
)
from torch2mlx.outline.scopes import Scope, as_layer, below, is_size


class Builder:
    """Builds the segment of every call, innermost first.

    Args:
        captured: Where classes and symbolic sizes are looked up.
    """

    def __init__(self, captured: Captured):
        self.captured = captured

    def model(
        self, scope: Scope, output: torch.fx.Node, inputs: list[torch.fx.Node]
    ) -> Segment:
        """The segment of the whole model."""
        results: list[Any] = list(output.args[0])  # type: ignore[arg-type]
        return self.build(scope, results, inputs)

    def build(
        self,
        scope: Scope,
        outputs: Iterable[Any],
        inputs: list[torch.fx.Node] | None = None,
    ) -> Segment:
        """The segment of `scope`, which must define `outputs` for its surroundings."""
        segment = Segment(scope.path, self.captured.classes.get(scope.path))
        inside = set(scope.nodes())
        children = [
            self._child(c) if isinstance(c, Scope) else c for c in scope.children
        ]
        if inputs is None:
            segment.inputs = self._inputs(scope.path, children, inside)
        else:
            segment.inputs = list(inputs)
        segment.region = common(region(node) for node in scope.nodes())
        visible = list(segment.inputs)
        for child in children:
            seen = _seen_from(_region_of(child), visible)
            item = self._item(child, segment, seen)
            segment.items.append(item)
            visible.extend(item.outputs)
        seen = _seen_from(segment.region, visible)
        segment.outputs = [self._operand(value, segment, seen) for value in outputs]
        self._order_inputs(segment)
        return segment

    def _child(self, scope: Scope) -> Segment | torch.fx.Node:
        layer = as_layer(scope)
        if layer is not None:
            (node,) = scope.children
            assert isinstance(node, torch.fx.Node)
            node.op, node.target = "call_module", scope.path
            node.meta["layer"] = layer
            return node
        nodes = scope.nodes()
        inside = set(nodes)
        escaping = [
            n for n in nodes if any(user not in inside for user in array_users(n))
        ]
        escaping.sort(key=lambda node: _result_position(node, scope.path))
        return self.build(scope, escaping)

    def _inputs(
        self, path: str, children: list[Any], inside: set[torch.fx.Node]
    ) -> list[torch.fx.Node]:
        """Arrays from outside, in the order in which they are first used."""
        found: dict[torch.fx.Node, None] = {}
        for child in children:
            sources = (
                child.inputs if isinstance(child, Segment) else child.all_input_nodes
            )
            for node in sources:
                if node in inside or is_size(node):
                    continue
                if node.op == "get_attr" and below(str(node.target), path) is not None:
                    continue
                found.setdefault(node)
        return list(found)

    def _operand(
        self, value: Any, segment: Segment, visible: list[torch.fx.Node]
    ) -> Any:
        if not isinstance(value, torch.fx.Node):
            return value
        if is_size(value):
            return self._size(value, visible, segment)
        if value.op == "get_attr" and value not in segment.inputs:
            relative = below(str(value.target), segment.path)
            assert relative is not None
            hint = value.meta["hint"]
            return Attr(relative, value.meta["weight"], tuple(hint.shape), hint.dtype)
        return value

    def _item(self, child: Any, segment: Segment, visible: list[torch.fx.Node]) -> Item:
        def operand(value: Any) -> Any:
            return self._operand(value, segment, visible)

        if isinstance(child, Segment):
            relative = below(child.path, segment.path)
            assert relative is not None
            outputs: list[torch.fx.Node] = child.outputs
            return Invoke(relative, child, [operand(n) for n in child.inputs], outputs)
        args = map_values(operand, tuple(child.args))
        kwargs = map_values(operand, dict(child.kwargs))
        if child.op == "call_module":
            layer = child.meta["layer"]
            relative = below(child.target, segment.path) if child.target else None
            if relative is None:
                relative = self._anonymous(layer, segment)
            return Invoke(relative, layer, list(args), [child])
        if child.target is mx.reshape and isinstance(args[1], tuple | list):
            args = (args[0], self._kept(child, args[1]))
        return Op(child, args, kwargs)

    def _kept(self, node: torch.fx.Node, sizes: Sequence[Any]) -> tuple[Any, ...]:
        """The sizes of a reshape; one that an axis had before is read beside the one before it."""
        kept = list(sizes)
        own: tuple[int, ...] = node.args[0].meta["hint"].shape  # type: ignore[union-attr]
        for i, size in enumerate(sizes):
            before = kept[i - 1] if i else None
            if type(size) is not int or size < 2 or not isinstance(before, Dim):
                continue
            is_last = i == len(sizes) - 1 and own[-1] == size
            is_kept = i < len(own) - 1 and own[i] == size
            known = self.sizes(before.value)[before.axis + 1 :]
            if known and known[0] == size and (is_last or is_kept):
                kept[i] = Dim(before.value, before.axis + 1)
        return tuple(kept)

    def _anonymous(self, layer: Layer, segment: Segment) -> str:
        """An attribute for a layer that no PyTorch module stands for: `dropout`, `max_pool2d`."""
        base = snake_case(layer.cls.__name__)
        prefix = f"{segment.path}." if segment.path else ""
        made = {i.path: i.callee for item in segment.items for i in invokes(item)}
        names = itertools.chain([base], (f"{base}{i}" for i in itertools.count(2)))
        for name in names:
            if made.get(name) == layer:
                return name
            if name not in made and prefix + name not in self.captured.classes:
                return name
        raise AssertionError

    def _size(
        self, node: torch.fx.Node, visible: list[torch.fx.Node], segment: Segment
    ) -> Any:
        """How the size `node` is read here: from the first visible array that has it."""
        expr = node.meta.get("expr")
        if node in visible:
            return node
        if expr is not None:
            expr = sympy.sympify(expr).subs(self.captured.unified)
            if expr.is_Integer:
                return int(expr)
            found = self._find(expr, visible)
            if found is not None:
                return found
        if node.target is intrinsics.dim:
            value, axis = node.args
            if value in visible:
                return Dim(value, axis)  # type: ignore[arg-type]
        elif node.all_input_nodes and all(map(_is_number, node.all_input_nodes)):
            parts = map_values(
                lambda a: (
                    self._size(a, visible, segment)
                    if isinstance(a, torch.fx.Node)
                    else a
                ),
                tuple(node.args),
            )
            return SizeOp(node.target, parts)  # type: ignore[arg-type]
        if node not in segment.inputs:
            segment.inputs.append(node)  # computed by the caller
        return node

    def _find(self, expr: Any, visible: list[torch.fx.Node]) -> Dim | None:
        for value in visible:
            for axis, size in enumerate(self.sizes(value)):
                if size == expr:
                    return Dim(value, axis)
        return None

    def sizes(self, value: torch.fx.Node) -> list[Any]:
        """The sizes of `value` as it is stored, as expressions; empty when they are not known."""
        tensor = value.meta.get("val")
        if not isinstance(tensor, torch.Tensor):
            return []
        sizes = [self.captured.expr(size) for size in tensor.shape]
        perm = value.meta.get("perm")
        return [sizes[axis] for axis in perm] if perm else sizes

    def _order_inputs(self, segment: Segment) -> None:
        """Inputs in the order of forward's parameters, and their names."""
        parameters = _forward_parameters(segment.cls)
        named: list[tuple[int, int, str, torch.fx.Node]] = []
        for position, node in enumerate(segment.inputs):
            names = [
                name
                for path, name in argument_names(node)
                if path == segment.path and name in parameters
            ]
            rank = parameters.index(names[0]) if names else len(parameters)
            named.append((rank, position, names[0] if names else "", node))
        if segment.path:
            named.sort(key=lambda entry: entry[:2])
        segment.inputs = [entry[3] for entry in named]
        segment.names = [entry[2] for entry in named]


def _region_of(child: Segment | torch.fx.Node) -> Region:
    return child.region if isinstance(child, Segment) else region(child)


def _seen_from(inner: Region, values: list[torch.fx.Node]) -> list[torch.fx.Node]:
    """The values that are not made in another branch or loop."""
    return [value for value in values if is_inside(inner, region(value))]


def argument_names(node: torch.fx.Node) -> list[tuple[str, str]]:
    """[(module path, argument)]: as what forward of which modules receives this value."""
    return _roles(node, "forward_args")


def _result_position(node: torch.fx.Node, path: str) -> int:
    """Which of the results of the module at `path` a value is; large where it is none."""
    found = [k for owner, k in _roles(node, "forward_results") if owner == path]
    return found[0] if found else 1_000_000


def _roles(node: torch.fx.Node, role: str) -> list[tuple[str, Any]]:
    if role in node.meta:
        return node.meta[role]
    origin: torch.fx.Node | None = node.meta.get("origin")
    if origin is None or "val" not in node.meta:
        return []  # not the whole result of its origin
    return origin.meta.get(role, [])


def _forward_parameters(cls: type | None) -> list[str]:
    if cls is None:
        return []
    try:
        return list(inspect.signature(cls.forward).parameters)[1:]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return []


def _is_number(node: torch.fx.Node) -> bool:
    """Whether a node is a size, or a number that is read from an array."""
    return isinstance(node.meta.get("hint"), int | float)


def array_users(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Who uses an array; whoever only reads its sizes finds them elsewhere if it can."""
    users: list[torch.fx.Node] = []
    for user in node.users:
        if user.op == "output" and node not in user.args[0]:  # type: ignore[operator]
            continue  # a store, which nothing needs
        if not is_size(user):
            users.append(user)
        elif _is_number(node) or _is_found_here_only(user):
            users.extend(array_users(user))
    return users


def _is_found_here_only(size: torch.fx.Node) -> bool:
    """Whether a size is read from values, so that no input has it."""
    expr = sympy.sympify(size.meta.get("expr"))
    return expr is not None and any(map(is_read, expr.free_symbols))
