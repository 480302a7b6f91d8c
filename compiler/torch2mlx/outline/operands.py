"""What a module call is made of: statements, and the operands that they take.

An operand is a plain constant, a value (a node of the lowered graph), or one of the classes below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core
import torch.fx

from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.ir.regions import Region, region
from torch2mlx.lower.facade import map_values


@dataclass(frozen=True)
class Attr:
    """An array that the module owns: `self.<path>`."""

    path: str
    weight: Weight
    shape: tuple[int, ...]
    dtype: mlx.core.Dtype


@dataclass(frozen=True)
class Dim:
    """One size of a visible array: `value.shape[axis]`."""

    value: torch.fx.Node
    axis: int


@dataclass(frozen=True)
class SizeOp:
    """Arithmetic on sizes."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass
class Op:
    """A function call; its result is `node`."""

    node: torch.fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def outputs(self) -> list[torch.fx.Node]:
        """The values that this item defines."""
        return [self.node]


@dataclass
class Invoke:
    """A call of a layer or of a submodule.

    Attributes:
        path: Attribute path below the module, e.g. `layer1.0`.
        callee: The layer, or the submodule's segment.
        args: Its operands.
        outputs: The values that it defines.
    """

    path: str
    callee: Layer | Segment
    args: list[Any]
    outputs: list[torch.fx.Node]


@dataclass
class Loop:
    """`for layer in self.<base>: x = layer(x, ...)`.

    Attributes:
        bases: Attribute paths of the lists that it runs over, one after the other.
        steps: The invocations (or inner loops) that it stands for, in order.
        carried: Argument position -> the output of the previous step that it takes.
        span: For a part of one list, its first and last index + 1; None for all of it.
        named: Whether the lists are dicts, looped over by `.values()`.
    """

    bases: list[str]
    steps: list[Invoke | Loop]
    carried: dict[int, int]
    span: tuple[int, int] | None = None
    named: bool = False

    @property
    def args(self) -> list[Any]:
        """The operands of the first step."""
        return self.steps[0].args

    @property
    def outputs(self) -> list[torch.fx.Node]:
        """The values that the last step defines."""
        return self.steps[-1].outputs


Item = Op | Invoke | Loop


@dataclass
class Segment:
    """One call of one module, as straight-line code.

    Attributes:
        path: The module's path, "" for the model.
        cls: The module's PyTorch class.
        items: Its statements in order.
        inputs: The values that cross into it, in the order of its parameters.
        names: Parameter names of `inputs`, "" where the author has none.
        outputs: The operands that leave it.
        adopted: Arrays of the module that only code outside it uses, by path below it.
        region: The branches and loops that it is in.
    """

    path: str
    cls: type | None
    items: list[Item] = field(default_factory=list)
    inputs: list[torch.fx.Node] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    adopted: dict[str, Attr] = field(default_factory=dict)
    region: Region = ()


def leaves(value: Any) -> Iterator[Any]:
    """The operands in nested arguments."""
    found: list[Any] = []
    map_values(found.append, value)
    for leaf in found:
        if isinstance(leaf, SizeOp):
            yield from leaves(leaf.args)
        else:
            yield leaf


def values_in(value: Any) -> Iterator[torch.fx.Node]:
    """The graph values that nested arguments refer to, directly or for their sizes."""
    for leaf in leaves(value):
        if isinstance(leaf, torch.fx.Node):
            yield leaf
        elif isinstance(leaf, Dim):
            yield leaf.value


def item_values(item: Item) -> list[torch.fx.Node]:
    """The values that an item uses."""
    if isinstance(item, Op):
        return list(values_in((item.args, item.kwargs)))
    return list(values_in(item.args))


def region_of(item: Item) -> Region:
    """The branches and loops that an item is in."""
    if isinstance(item, Loop):
        return region_of(item.steps[0])
    if isinstance(item, Op):
        return region(item.node)
    if isinstance(item.callee, Segment):
        return item.callee.region
    return region(item.outputs[0])


def invokes(item: Item) -> list[Invoke]:
    """The single calls that an item stands for."""
    if isinstance(item, Loop):
        return [invoke for step in item.steps for invoke in invokes(step)]
    return [item] if isinstance(item, Invoke) else []


def segments_below(segment: Segment) -> Iterator[Segment]:
    """The segments of all submodule calls, innermost first."""
    for item in segment.items:
        for invoke in invokes(item):
            if isinstance(invoke.callee, Segment):
                yield from segments_below(invoke.callee)
                yield invoke.callee
