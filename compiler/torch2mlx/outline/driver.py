"""Outline: the lowered graph as a tree of module calls, loops rolled, equal calls one class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import unsupported
from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.lower.driver import Lowered
from torch2mlx.lower.regions import settle_regions
from torch2mlx.outline.classes import ClassSpec, build_classes
from torch2mlx.outline.hoist import hoist
from torch2mlx.outline.loops import roll
from torch2mlx.outline.operands import (
    Attr,
    Segment,
    invokes,
    leaves,
    segments_below,
)
from torch2mlx.outline.printer import print_classes
from torch2mlx.outline.scopes import (
    PARAMETERS,
    below,
    build_scopes,
    dissolve_containers,
    dissolve_foreign,
    dissolve_reached,
    is_container,
    order,
)
from torch2mlx.outline.segments import Builder
from torch2mlx.outline.share import share
from torch2mlx.outline.template import Instances


@dataclass
class Outlined:
    """A model as classes.

    Attributes:
        model: The segment of the whole model.
        classes: Submodules' classes before those that hold them; the model's class is the last.
        instances: The class and constructor arguments of every segment.
        weights: Path of each array (PyTorch's module path and MLX's attribute) -> its origin.
        arguments: The dataclasses of the numbers that the classes take from the model's configuration.
    """

    model: Segment
    classes: list[ClassSpec]
    instances: Instances
    weights: dict[str, Weight]
    arguments: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return print_classes(self.classes)


def outline(lowered: Lowered, captured: Captured) -> Outlined:
    """Classes, loops and parameters for a lowered graph.

    Raises:
        UnsupportedError: One weight is needed in two layouts.
    """
    settle_regions(lowered.graph)
    hoist(lowered.graph, captured.model_class, captured.classes)
    share(lowered.graph, captured.model_class, captured.classes)
    weights = _weights(lowered.graph)
    inlined: set[str] = set()
    while True:
        model = _segments(lowered.graph, captured, inlined)
        instances = Instances()
        classes = build_classes(model, captured.modules, instances)
        conflicts = _conflicts(model, instances)
        if not conflicts:
            return Outlined(model, classes, instances, weights)
        inlined |= conflicts


def _segments(graph: torch.fx.Graph, captured: Captured, inlined: set[str]) -> Segment:
    """The segment of the model, every call below it a segment with its loops rolled."""
    root = build_scopes(graph, captured.model_class)
    for scope in root.below():
        scope.dissolved = scope.path in inlined
    dissolve_containers(root, captured.classes)
    dissolve_foreign(root)
    dissolve_reached(root)
    order(root)
    output = next(n for n in graph.nodes if n.op == "output")
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    model = Builder(captured).model(root, output, inputs)
    owners = {key.rpartition(".")[0] for key in captured.tensors}
    lists = {
        path
        for path, cls in captured.classes.items()
        if (is_container(cls) and path not in owners) or cls in PARAMETERS
    }
    for segment in [*segments_below(model), model]:
        roll(segment, lists)
    _adopt(model)
    return model


def _conflicts(model: Segment, instances: Instances) -> set[str]:
    """Modules that are not the same in all their calls, or also a layer: their calls are written out."""
    made: dict[str, Any] = {}
    conflicts: set[str] = set()
    for segment in [*segments_below(model), model]:
        for invoke in (i for item in segment.items for i in invokes(item)):
            path = f"{segment.path}.{invoke.path}" if segment.path else invoke.path
            callee = invoke.callee
            how: Any = Layer
            if isinstance(callee, Segment):
                key = id(callee)
                how = (instances.class_of[key], repr(instances.arguments[key]))
            if made.setdefault(path, how) != how:
                conflicts.add(path)
    return conflicts


def _adopt(model: Segment) -> None:
    """Give every array or layer that only code outside its module uses to that module."""
    for segment in [*segments_below(model), model]:
        calls = {i.path: i.callee for item in segment.items for i in invokes(item)}
        arguments = [(i.args, getattr(i, "kwargs", {})) for i in segment.items]
        for leaf in leaves([*arguments, segment.outputs]):
            if isinstance(leaf, Attr):
                _hand_down(leaf, leaf.path, calls)
        for path, callee in calls.items():
            if isinstance(callee, Layer):
                _hand_down(callee, path, calls)


def _hand_down(
    part: Attr | Layer, path: str, calls: dict[str, Layer | Segment]
) -> None:
    for owner, callee in calls.items():
        relative = below(path, owner)
        if relative and isinstance(callee, Segment):
            own = replace(part, path=relative) if isinstance(part, Attr) else part
            callee.adopted.setdefault(relative, own)
            inner = {i.path: i.callee for item in callee.items for i in invokes(item)}
            _hand_down(part, relative, inner)


def _weights(graph: torch.fx.Graph) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            found = {str(node.target): node.meta["weight"]}
        elif node.op == "call_module":
            layer: Layer = node.meta["layer"]
            found = {f"{node.target}.{name}": w for name, w in layer.weights.items()}
        else:
            continue
        for path, weight in found.items():
            if weights.setdefault(path, weight) != weight:
                hint = f"`{path}` is also used by an operator that needs it in another layout"
                raise unsupported(node.meta["origin"], f"{hint}: use a copy of it")
    return weights
