"""Templates: a segment with its constants taken out, so that equal structures compare equal.

Every number in a segment (a stride, a width, an axis) becomes a `Hole`. Two segments with the same key are
the same class; holes whose values differ become its parameters.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.ir.layer import Layer
from torch2mlx.ir.regions import Region
from torch2mlx.lower.facade import map_values
from torch2mlx.outline.operands import (
    EACH,
    Attr,
    Causal,
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    Repeat,
    Segment,
    SizeOp,
    invokes,
    leaves,
    region_of,
)

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Hole:
    """A constant of a template, by its index."""

    index: int


@dataclass(frozen=True)
class HoleInfo:
    """What a hole is in one segment.

    Attributes:
        value: The int, float or bool that stands there.
        hint: Name of the argument that it is, e.g. `in_channels`.
        group: Attribute path of the layer it belongs to; absent layers have no holes.
        default: MLX's default of that argument, or `inspect.Parameter.empty`.
    """

    value: Any
    hint: str
    group: str
    default: Any = EMPTY


@dataclass
class Construct:
    """How an attribute is made: a layer, an array, or a class of the generated file.

    Attributes:
        target: An `mlx.nn` class, the `ClassSpec` of a generated class, or None for an array.
        arguments: Constructor arguments (for an array: its shape), with holes.
        dtype: For an array, its MLX dtype.
        trainable: For an array, whether it is a parameter.
    """

    target: Any
    arguments: dict[str, Any]
    dtype: Any = None
    trainable: bool = True


@dataclass
class Template:
    """A segment without its constants.

    Attributes:
        segment: The segment that it was made from.
        items: Its items, constants replaced by holes.
        outputs: Its outputs, constants replaced by holes.
        attributes: Attribute path -> how it is made, in order of use.
        holes: What the holes are.
        key: Structure; equal keys mean equal code up to holes.
    """

    segment: Segment
    items: list[Item] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    attributes: dict[str, Construct] = field(default_factory=dict)
    holes: list[HoleInfo] = field(default_factory=list)
    key: Any = None


class Instances:
    """Which generated class each segment became, and with which arguments."""

    def __init__(self) -> None:
        self.class_of: dict[int, Any] = {}
        self.arguments: dict[int, dict[str, Any]] = {}

    def add(self, segment: Segment, spec: Any, arguments: dict[str, Any]) -> None:
        """`segment` is an instance of `spec`, made with `arguments`."""
        self.class_of[id(segment)] = spec
        self.arguments[id(segment)] = arguments


class Abstraction:
    """Makes the template of one segment.

    Args:
        segment: The segment; its submodules must have their classes already.
        instances: The classes of submodules.
        skip: Attribute roots to leave out; what flows into them flows past them.
        passed: Calls to leave out, each with the operand that stands for it.
        double: Inputs to leave out, each with the input that stands for it.
    """

    def __init__(
        self,
        segment: Segment,
        instances: Instances,
        skip: frozenset[str] = frozenset(),
        passed: dict[torch.fx.Node, torch.fx.Node] | None = None,
        double: dict[torch.fx.Node, torch.fx.Node] | None = None,
    ):
        self.instances = instances
        self.skip = skip
        self.passed = passed or {}
        self.double = double or {}
        self.template = Template(segment)
        self.group = ""
        self.number: dict[torch.fx.Node, int] = {}
        self.values = 0
        self.keys: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.called = {
            call.path
            for item in segment.items
            for call in invokes(item)
            if isinstance(call.callee, Segment)
        }

    def run(self) -> Template:
        """The template."""
        template, segment = self.template, self.template.segment
        for node in segment.inputs:
            if node not in self.double:
                self._define(node)
        for node, other in self.double.items():
            self.number[node] = self.number[other]
        for item in segment.items:
            if not isinstance(item, Op | Repeat) and root(item) in self.skip:
                self.number[item.outputs[0]] = self.number[item.args[0]]
                continue
            if isinstance(item, Op) and item.node in self.passed:
                self.number[item.node] = self.number[self.passed[item.node]]
                continue
            self.keys.append(self._region(region_of(item)))
            template.items.append(self._item(item))
            for out in item.outputs:
                self._define(out)
        template.outputs = self._operands(segment.outputs, "value")
        for path, part in segment.adopted.items():
            if path.partition(".")[0] in self.skip:
                continue
            if isinstance(part, Attr):
                self._array(part)
            else:
                self._attribute(Invoke(path, part, [], []))
        attributes = tuple(
            (path, self._construct_key(construct))
            for path, construct in template.attributes.items()
        )
        named = zip(segment.inputs, segment.names, strict=True)
        names = tuple(name for node, name in named if node not in self.double)
        outputs = self._key(template.outputs)
        template.key = (names, tuple(self.keys), outputs, attributes)
        return template

    def _region(self, region: Region) -> Any:
        """The branches and loops of an item within the segment, numbered as they come."""
        base = len(self.template.segment.region)
        return tuple(
            (self.numbers.setdefault(number, len(self.numbers)), part)
            for number, part in region[base:]
        )

    def _define(self, node: torch.fx.Node) -> None:
        self.number[node] = self.values
        self.values += 1

    def _hole(self, value: Any, hint: str, default: Any = EMPTY) -> Hole:
        hole = Hole(len(self.template.holes))
        self.template.holes.append(HoleInfo(value, hint, self.group, default))
        return hole

    def _operands(self, value: Any, hint: str) -> Any:
        """`_operand` of each leaf of nested arguments."""
        return map_values(lambda leaf: self._operand(leaf, hint), value)

    def _operand(self, value: Any, hint: str) -> Any:
        if isinstance(value, bool | int | float):
            return self._hole(value, hint)
        if isinstance(value, SizeOp):
            return SizeOp(
                value.function, tuple(self._operand(a, hint) for a in value.args)
            )
        if isinstance(value, Attr):
            self._array(value)
        return value

    def _array(self, attr: Attr) -> None:
        attributes = self.template.attributes
        if EACH in attr.path:
            return  # an element of a list
        if any(path in attributes for path in _prefixes(attr.path)):
            return  # belongs to a layer
        if self._is_below_call(attr.path):
            return
        group, self.group = self.group, attr.path
        holes = tuple(self._hole(size, "dims") for size in attr.shape)
        self.group = group
        trainable = attr.weight.trainable
        attributes[attr.path] = Construct(None, {"shape": holes}, attr.dtype, trainable)

    def _is_below_call(self, path: str) -> bool:
        """Whether a submodule that is a class owns what is at `path`."""
        return any(prefix in self.called for prefix in _prefixes(path))

    def _item(self, item: Item) -> Item:
        if isinstance(item, Repeat):
            return self._repeat(item)
        if isinstance(item, Op):
            names = argument_names_of(item.node.target)
            args = tuple(
                self._operands(arg, names[i] if i < len(names) else "size")
                for i, arg in enumerate(item.args)
            )
            kwargs = {
                name: self._operands(arg, name) for name, arg in item.kwargs.items()
            }
            if item.node.target is mx.fast.scaled_dot_product_attention:
                kwargs |= self._causal(item.kwargs.get("mask"))
            key = ("op", id(item.node.target), self._key(args), self._key(kwargs))
            self.keys.append(key)
            return Op(item.node, args, kwargs)
        args = [self._operands(arg, "size") for arg in item.args]
        for step in invokes(item):
            self._attribute(step)
        if isinstance(item, Invoke):
            self.keys.append(("invoke", item.path, self._key(args), len(item.outputs)))
            return Invoke(item.path, item.callee, args, item.outputs)
        carried = tuple(item.carried.items())
        self.keys.append(
            ("loop", tuple(item.bases), item.span, carried, self._key(args))
        )
        steps: list[Invoke | Loop] = list(item.steps)
        first = steps[0]
        if isinstance(first, Invoke):
            steps[0] = Invoke(first.path, first.callee, args, first.outputs)
        return Loop(item.bases, steps, item.carried, item.span, item.named)

    def _causal(self, mask: Any) -> dict[str, Any]:
        """Calls with and without the causal mask compare equal: whether it is there is a number."""
        if mask is not None and not isinstance(mask, str):
            return {}
        return {"mask": Causal(self._hole(mask == "causal", "is_causal", False))}

    def _repeat(self, item: Repeat) -> Repeat:
        for step in invokes(item):
            self._attribute(step)
        for leaf in leaves(item.args):
            if isinstance(leaf, Attr):
                self._array(leaf)
        bases = tuple((b.path, *b.names) for b in item.bases)
        self.keys.append(("repeat", len(item.rounds), bases))
        variables = [
            replace(v, initial=self._operands(v.initial, "value"))
            for v in item.variables
        ]
        varying = [
            replace(v, values=self._operands(v.values, "value")) for v in item.varying
        ]
        for v in variables:
            self.keys.append(("variable", self._key(v.initial)))
            self._define(v.node)
        for v in varying:
            self.keys.append(("varying", id(v.node.target), self._key(v.values)))
            self._define(v.node)
        body: list[Item] = []
        for inner in item.body:
            body.append(self._item(inner))
            for out in inner.outputs:
                self._define(out)
        kept = [(c.value, tuple(c.kept)) for c in item.collected]
        ends = [(v.following, v.result is not None) for v in variables]
        self.keys.append(("round", self._key(ends), self._key(kept)))
        return replace(item, body=body, variables=variables, varying=varying)

    def _attribute(self, item: Invoke) -> None:
        """Record how the attribute that `item` calls is made."""
        if item.path in self.template.attributes or EACH in item.path:
            return
        if self._is_below_call(item.path.rpartition(".")[0]):
            return
        self.group, outer = item.path, self.group
        if isinstance(item.callee, Layer):
            construct = Construct(item.callee.cls, self._layer_arguments(item.callee))
        else:
            made_with = self.instances.arguments[id(item.callee)]
            arguments = {name: self._hole(v, name) for name, v in made_with.items()}
            construct = Construct(self.instances.class_of[id(item.callee)], arguments)
        self.template.attributes[item.path] = construct
        self.group = outer

    def _layer_arguments(self, layer: Layer) -> dict[str, Any]:
        parameters = inspect.signature(layer.cls).parameters
        bound = inspect.signature(layer.cls).bind(*layer.args, **layer.kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            default = parameters[name].default
            if parameters[name].annotation is float:
                value, default = (  # 10000 and 1e5 are of one kind
                    float(v) if type(v) is int else v for v in (value, default)
                )
            arguments[name] = map_values(
                lambda v, n=name, d=default: (
                    self._hole(v, n, d) if isinstance(v, bool | int | float) else v
                ),
                value,
            )
        return arguments

    def _key(self, value: Any) -> Any:
        """A hashable form of operands in which values are numbers and holes are anonymous."""
        if isinstance(value, list | tuple):
            return tuple(self._key(v) for v in value)
        if isinstance(value, dict):
            return tuple((k, self._key(v)) for k, v in value.items())
        if isinstance(value, slice):
            return ("slice", self._key((value.start, value.stop, value.step)))
        if isinstance(value, torch.fx.Node):
            return ("value", self.number[value])
        if isinstance(value, Dim):
            return ("dim", self.number[value.value], value.axis)
        if isinstance(value, SizeOp):
            return ("size", id(value.function), self._key(value.args))
        if isinstance(value, Attr):
            return ("attr", value.path)
        if isinstance(value, Causal):
            return ("causal", self._key(value.flag))
        if isinstance(value, Hole):
            return ("hole", type(self.template.holes[value.index].value).__name__)
        return repr(value)

    def _construct_key(self, construct: Construct) -> Any:
        target = id(construct.target) if construct.target is not None else None
        arguments = tuple((k, self._key(v)) for k, v in construct.arguments.items())
        return (target, arguments, str(construct.dtype), construct.trainable)


def root(item: Invoke | Loop | Repeat) -> str:
    """The first component of the attribute that an item calls; "" where it calls several."""
    if isinstance(item, Repeat):
        return ""
    path = item.path if isinstance(item, Invoke) else item.bases[0]
    return path.partition(".")[0]


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def argument_names_of(function: Any) -> list[str]:
    """Parameter names of a function where Python knows them."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
