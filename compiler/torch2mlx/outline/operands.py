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


@dataclass(frozen=True)
class Causal:
    """The mask of an attention that has none but perhaps the causal one: whether it has that."""

    flag: Any


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


@dataclass(frozen=True)
class Base:
    """A list or dict of modules or arrays that a `Repeat` runs over.

    Attributes:
        path: Its attribute path.
        names: The elements that the rounds take.
        mark: What stands for the element in the paths of the body.
    """

    path: str
    names: list[str]
    mark: str


@dataclass
class Variable:
    """What a round of a `Repeat` changes for the next one.

    Attributes:
        node: What it is in a round; `carried` of nothing in no graph.
        initial: What it is in the first round.
        following: The value of the first round that it is in the second one.
        result: The value of the last round that code after the loop takes; None where none does.
    """

    node: torch.fx.Node
    initial: Any
    following: torch.fx.Node
    result: torch.fx.Node | None = None


@dataclass
class Collected:
    """A value of a `Repeat` that code after the loop takes from more than the last round.

    Attributes:
        value: The value of the first round.
        kept: Round -> its value, for those that are taken.
    """

    value: torch.fx.Node
    kept: dict[int, torch.fx.Node]


@dataclass
class Varying:
    """An operand from outside a `Repeat` that is not the same in all rounds.

    Attributes:
        node: What the body has in its place; `by_round` of nothing in no graph.
        values: The operand of each round.
    """

    node: torch.fx.Node
    values: list[Any]


@dataclass
class Repeat:
    """`for layer in self.<base>:` with any body; the same as `rounds` one after the other.

    Attributes:
        bases: The lists that it runs over in parallel.
        body: The first round, a base's mark in place of its element in paths.
        rounds: All rounds as they were.
        variables: What the rounds change.
        collected: What the rounds give besides.
        varying: What the rounds take that is not the same in all of them.
        node: `loop` of nothing in no graph, which stands for it.
    """

    bases: list[Base]
    body: list[Item]
    rounds: list[list[Item]]
    variables: list[Variable]
    collected: list[Collected]
    varying: list[Varying]
    node: torch.fx.Node

    @property
    def args(self) -> list[Any]:
        """All operands of all rounds, and what the rounds begin with."""
        found: list[Any] = [v.initial for v in self.variables]
        for item in (item for items in self.rounds for item in items):
            found += [item.args, item.kwargs] if isinstance(item, Op) else item.args
        return found

    @property
    def outputs(self) -> list[torch.fx.Node]:
        """The values that code after the loop takes."""
        results = [v.result for v in self.variables if v.result is not None]
        return [*results, *(n for c in self.collected for n in c.kept.values())]


Item = Op | Invoke | Loop | Repeat
HOISTED = (
    "hoisted"  # in the meta of what stands outside its module: path and class of that
)
EACH = "*"  # begins the component of a path that is the element which a round takes


def by_round(values: list[Any]) -> Any:
    """The value of the round that a `Repeat` is in."""
    return values[0]


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
        adopted: Arrays and layers of the module that only code outside it uses, by path below it.
        region: The branches and loops that it is in.
    """

    path: str
    cls: type | None
    items: list[Item] = field(default_factory=list)
    inputs: list[torch.fx.Node] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    adopted: dict[str, Attr | Layer] = field(default_factory=dict)
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
    if isinstance(item, Repeat):
        made = {n for items in item.rounds for i in items for n in i.outputs}
        return [value for value in values_in(item.args) if value not in made]
    return list(values_in(item.args))


def region_of(item: Item) -> Region:
    """The branches and loops that an item is in."""
    if isinstance(item, Loop):
        return region_of(item.steps[0])
    if isinstance(item, Repeat):
        return region(item.node)
    if isinstance(item, Op):
        return region(item.node)
    if isinstance(item.callee, Segment):
        return item.callee.region
    return region(item.outputs[0])


def flat(items: list[Item]) -> Iterator[Item]:
    """Items, those in the bodies of loops after their loop."""
    for item in items:
        yield item
        if isinstance(item, Repeat):
            yield from flat(item.body)


def counted(items: list[Item]) -> set[str]:
    """The lists whose code is right for one number of elements only."""
    found: set[str] = set()
    for item in items:
        if isinstance(item, Loop) and item.span is not None:
            found |= {*item.bases}
        elif isinstance(item, Invoke) and any(map(str.isdigit, item.path.split("."))):
            if item.outputs and HOISTED in item.outputs[0].meta:
                continue  # of the first element, which every list has
            parts = item.path.split(".")
            found |= {".".join(parts[:i]) for i, p in enumerate(parts) if p.isdigit()}
        elif isinstance(item, Repeat) and (item.varying or item.collected):
            found |= {base.path for base in item.bases}
    return found


def invokes(item: Item) -> list[Invoke]:
    """The single calls that an item stands for."""
    if isinstance(item, Loop):
        return [invoke for step in item.steps for invoke in invokes(step)]
    if isinstance(item, Repeat):
        items = (item for items in item.rounds for item in items)
        return [invoke for item in items for invoke in invokes(item)]
    return [item] if isinstance(item, Invoke) else []


def segments_below(segment: Segment) -> Iterator[Segment]:
    """The segments of all submodule calls, innermost first."""
    for item in segment.items:
        for invoke in invokes(item):
            if isinstance(invoke.callee, Segment):
                yield from segments_below(invoke.callee)
                yield invoke.callee
