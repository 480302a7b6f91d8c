"""Outline: the lowered graph as a tree of module calls, loops rolled, equal calls one class."""

from __future__ import annotations

from dataclasses import dataclass

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.lower.driver import Lowered
from torch2mlx.outline.classes import ClassSpec, build_classes
from torch2mlx.outline.loops import roll
from torch2mlx.outline.operands import Attr, Invoke, Segment, invokes, leaves, segments_below
from torch2mlx.outline.scopes import (
    below,
    build_scopes,
    dissolve_containers,
    dissolve_foreign,
    is_container,
    order,
)
from torch2mlx.outline.segments import Builder
from torch2mlx.outline.template import Instances


@dataclass
class Outlined:
    """A model as classes.

    Attributes:
        model: The segment of the whole model.
        classes: Submodules' classes before those that hold them; the model's class is the last.
        instances: The class and constructor arguments of every segment.
        weights: Path of each array (PyTorch's module path and MLX's attribute) -> its origin.
    """

    model: Segment
    classes: list[ClassSpec]
    instances: Instances
    weights: dict[str, Weight]


def outline(lowered: Lowered, captured: Captured) -> Outlined:
    """Classes, loops and parameters for a lowered graph."""
    graph = lowered.graph
    root = build_scopes(graph, captured.model_class)
    dissolve_containers(root, captured.classes)
    dissolve_foreign(root)
    order(root)
    output = next(n for n in graph.nodes if n.op == "output")
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    model = Builder(captured).model(root, output, inputs)
    modules = captured.modules
    lists = {path for path, cls in captured.classes.items() if is_container(cls)}
    for segment in [*segments_below(model), model]:
        roll(segment, lists)
    _adopt(model)
    instances = Instances()
    classes = build_classes(model, modules, instances)
    return Outlined(model, classes, instances, _weights(graph))


def _adopt(model: Segment) -> None:
    """Give every array that only code outside its module uses to that module."""
    for segment in [*segments_below(model), model]:
        calls = {i.path: i.callee for item in segment.items for i in invokes(item)}
        for item in segment.items:
            arguments = (item.args, getattr(item, "kwargs", {}))
            for leaf in leaves(arguments):
                if isinstance(leaf, Attr):
                    _hand_down(leaf, leaf.path, calls)


def _hand_down(attr: Attr, path: str, calls: dict[str, Layer | Segment]) -> None:
    for owner, callee in calls.items():
        relative = below(path, owner)
        if relative and isinstance(callee, Segment):
            own = Attr(relative, attr.weight, attr.shape, attr.dtype)
            callee.adopted.setdefault(relative, own)
            inner = {i.path: i.callee for item in callee.items for i in invokes(item)}
            _hand_down(attr, relative, inner)


def _weights(graph: torch.fx.Graph) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            weights[str(node.target)] = node.meta["weight"]
        elif node.op == "call_module":
            layer: Layer = node.meta["layer"]
            for name, weight in layer.weights.items():
                weights[f"{node.target}.{name}"] = weight
    return weights
