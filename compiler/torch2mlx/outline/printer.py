"""An outlined model as text, for `--dump outline`.

BasicBlock(in_channels: int, stride: int = 1)
  conv1 = Conv2d(in_channels=in_channels, ...)
  $2 = conv1($0)
"""

from __future__ import annotations

from typing import Any

import torch.fx

from torch2mlx.lower.facade import map_values
from torch2mlx.outline.classes import ClassSpec, Ref
from torch2mlx.outline.operands import (
    Attr,
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    Repeat,
    SizeOp,
)
from torch2mlx.outline.template import EMPTY, Construct


def print_classes(classes: list[ClassSpec]) -> str:
    """Every class: its parameters, how its attributes are made, and its statements."""
    return "\n".join(_Printer(spec).print() for spec in classes)


class _Printer:
    def __init__(self, spec: ClassSpec):
        self.spec = spec
        self.numbers: dict[torch.fx.Node, str] = {}

    def print(self) -> str:
        spec, template = self.spec, self.spec.template
        parameters = [
            f"{p.name}: {p.type.__name__}"
            + ("" if p.default is EMPTY else f" = {p.default}")
            for p in spec.parameters
        ]
        inputs = ", ".join(self._value(node) for node in template.segment.inputs)
        lines = [f"{spec.name}({', '.join(parameters)}) on {inputs}"]
        for path, construct in template.attributes.items():
            condition = spec.optional.get(path.partition(".")[0])
            only = f" if {self._condition(*condition)}" if condition else ""
            lines.append(f"  {path} = {self._construct(construct)}{only}")
        for item in template.items:
            lines += [f"  {line}" for line in self._lines(item)]
        outputs = ", ".join(self._operand(value) for value in template.outputs)
        return "\n".join([*lines, f"  return {outputs}", ""])

    def _condition(self, parameter: str, other: Any) -> str:
        return parameter if other is None else f"{parameter} != {self._operand(other)}"

    def _construct(self, construct: Construct) -> str:
        target = construct.target
        name = (
            "array"
            if target is None
            else getattr(target, "name", "") or target.__name__
        )
        arguments = [f"{k}={self._operand(v)}" for k, v in construct.arguments.items()]
        return f"{name}({', '.join(arguments)})"

    def _lines(self, item: Item) -> list[str]:
        if not isinstance(item, Repeat):
            return [self._item(item)]
        lists = ", ".join(f"{b.mark} in {b.path}" for b in item.bases)
        lines = [f"{len(item.rounds)} times, {lists}:"]
        for v in item.variables:
            lines[:0] = [f"{self._value(v.node)} = {self._operand(v.initial)}"]
        for v in item.varying:
            values = ", ".join(map(self._operand, v.values))
            lines.append(f"  {self._value(v.node)} = each of {values}")
        for inner in item.body:
            lines += [f"  {line}" for line in self._lines(inner)]
        for v in item.variables:
            lines.append(f"  {self._value(v.node)} = {self._value(v.following)}")
        return lines

    def _item(self, item: Op | Invoke | Loop) -> str:
        args = [self._operand(arg) for arg in item.args]
        if isinstance(item, Op):
            args += [f"{k}={self._operand(v)}" for k, v in item.kwargs.items()]
            target: Any = item.node.target
            called = getattr(target, "__name__", str(target))
        elif isinstance(item, Loop):
            part = f"[{item.span[0]}:{item.span[1]}]" if item.span else ""
            called = f"each of {' + '.join(item.bases)}{part}"
        else:
            called = item.path
        outputs = ", ".join(self._value(node) for node in item.outputs)
        return f"{outputs} = {called}({', '.join(args)})"

    def _value(self, node: torch.fx.Node) -> str:
        return self.numbers.setdefault(node, f"${len(self.numbers)}")

    def _operand(self, value: Any) -> str:
        def leaf(operand: Any) -> Any:
            operand = self.spec.value(operand)
            if isinstance(operand, torch.fx.Node):
                return _Text(self._value(operand))
            if isinstance(operand, Ref):
                return _Text(operand.name)
            if isinstance(operand, Attr):
                return _Text(operand.path)
            if isinstance(operand, Dim):
                return _Text(f"{self._value(operand.value)}.shape[{operand.axis}]")
            if isinstance(operand, SizeOp):
                args = ", ".join(self._operand(arg) for arg in operand.args)
                return _Text(f"{operand.function.__name__}({args})")
            return operand

        return str(map_values(leaf, value))


class _Text(str):
    """Text that stands in a container without quotes."""

    __repr__ = str.__str__
