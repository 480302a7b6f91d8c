"""Whether stretches of code are rounds of one loop: the same code, but for what it takes.

h = self.a[0](x); x = x + h     a round takes      self.a[0], self.a[1]: the elements of a list,
h = self.a[1](x); x = x + h                        h: what it made itself, x: what the round before made
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.fx

from torch2mlx.ir.regions import Region, carried, element, loop
from torch2mlx.lower.facade import map_values
from torch2mlx.outline.operands import (
    EACH,
    Attr,
    Base,
    Collected,
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    Repeat,
    SizeOp,
    Variable,
    Varying,
    by_round,
    region_of,
)

Node = torch.fx.Node
Made = tuple[int, int]  # number of an item in its round, and of its output
DESCRIBED = ("val", "hint", "origin", "perm", "expr")


class Path(str):
    """The attribute path of a call, told from other strings."""


class Differ(Exception):
    """The stretches are not rounds of one loop."""


def mapped(item: Item, function: Callable[[Any], Any]) -> Item:
    """An item with `function` applied to its paths and to the leaves of its operands."""

    def leaf(value: Any) -> Any:
        if isinstance(value, SizeOp):
            return SizeOp(value.function, tuple(map_values(leaf, value.args)))
        return function(value)

    if isinstance(item, Op):
        return Op(item.node, map_values(leaf, item.args), map_values(leaf, item.kwargs))
    if isinstance(item, Invoke):
        path = str(function(Path(item.path)))
        args = [map_values(leaf, arg) for arg in item.args]
        return Invoke(path, item.callee, args, item.outputs)
    assert isinstance(item, Loop)
    bases = [str(function(Path(base))) for base in item.bases]
    args = [map_values(leaf, arg) for arg in item.args]
    return replace(
        item, bases=bases, steps=[_taking(item.steps[0], args), *item.steps[1:]]
    )


def _taking(step: Invoke | Loop, args: list[Any]) -> Invoke | Loop:
    """A step of a loop with other operands."""
    if isinstance(step, Invoke):
        return replace(step, args=args)
    return replace(step, steps=[_taking(step.steps[0], args), *step.steps[1:]])


def renamed(item: Item, names: dict[Node, Node]) -> Item:
    """An item that takes other values."""

    def rename(value: Any) -> Any:
        return renamed_in(value, names)

    def all_of(items: list[Item]) -> list[Item]:
        return [renamed(inner, names) for inner in items]

    if not isinstance(item, Repeat):
        return mapped(item, rename)
    return replace(
        item,
        body=all_of(item.body),
        rounds=[all_of(items) for items in item.rounds],
        variables=[replace(v, initial=rename(v.initial)) for v in item.variables],
        varying=[replace(v, values=list(map(rename, v.values))) for v in item.varying],
    )


def renamed_in(leaf: Any, names: dict[Node, Node]) -> Any:
    """An operand that takes other values."""
    if isinstance(leaf, SizeOp):
        return replace(leaf, args=tuple(renamed_in(arg, names) for arg in leaf.args))
    if isinstance(leaf, Dim):
        return replace(leaf, value=names.get(leaf.value, leaf.value))
    return names.get(leaf, leaf) if isinstance(leaf, Node) else leaf


def leaves_of(items: list[Item]) -> list[Any]:
    """What `mapped` replaces, in order."""
    found: list[Any] = []
    for item in items:
        mapped(item, lambda leaf: (found.append(leaf), leaf)[1])
    return found


def skeleton(item: Item) -> Hashable:
    """What must be the same in all rounds: everything but paths, values and numbers."""
    if isinstance(item, Repeat):
        return object()
    bare = mapped(item, _bare)
    if isinstance(bare, Op):
        return (id(bare.node.target), _structure((bare.args, bare.kwargs)))
    args = _structure(bare.args)
    if isinstance(bare, Invoke):
        return ("invoke", args, len(bare.outputs))
    assert isinstance(bare, Loop)
    inner = bare.steps[0]
    nested = isinstance(inner, Loop) and (True, inner.named, inner.span)
    carried = tuple(bare.carried.items())
    return ("loop", len(bare.bases), bare.named, bare.span, carried, nested, args)


def _bare(leaf: Any) -> str:
    if isinstance(leaf, Dim):
        return f"size {leaf.axis}"
    if isinstance(leaf, Attr):
        return f"attribute {leaf.dtype}"
    if isinstance(leaf, bool | int | float):
        return type(leaf).__name__
    return type(leaf).__name__ if isinstance(leaf, Node | Path) else repr(leaf)


def _structure(value: Any) -> str:
    def size(leaf: Any) -> Any:
        if isinstance(leaf, SizeOp):
            return (leaf.function.__name__, id(leaf.function), _structure(leaf.args))
        return leaf

    return repr(map_values(size, value))


@dataclass
class Rounds:
    """Makes one loop of several rounds.

    Args:
        rounds: Stretches of items, one after the other.
        after: What code after them takes, and how often; 0 where it only takes sizes.
        lists: Whether an attribute path is that of a list or dict, in the generated module, too.
        number: A number for the loop that nothing else in the module has.

    Attributes:
        renamed: What code after the loop takes in place of a value from before it.
    """

    rounds: list[list[Item]]
    after: dict[Node, int]
    lists: Callable[[str], bool]
    number: int
    variables: dict[Hashable, Variable] = field(default_factory=dict)
    varying: dict[Hashable, Varying] = field(default_factory=dict)
    bases: dict[Hashable, Base] = field(default_factory=dict)

    renamed: dict[Node, Node] = field(default_factory=dict)

    def __post_init__(self):
        self.graph = torch.fx.Graph()
        self.made: dict[Node, tuple[int, Made]] = {}
        for k, items in enumerate(self.rounds):
            for j, item in enumerate(items):
                self.made |= {n: (k, (j, m)) for m, n in enumerate(item.outputs)}

    def repeat(self) -> Repeat:
        """The loop.

        Raises:
            Differ: These are no rounds of a loop.
        """
        slots = zip(*map(leaves_of, self.rounds), strict=True)
        written = iter([self._slot(slot) for slot in slots])
        body = [mapped(item, lambda _: next(written)) for item in self.rounds[0]]
        collected = self._results()
        region: Region = region_of(self.rounds[0][0])
        node = self._placeholder(loop, None)
        node.meta.update(region=region, number=("repeat", self.number))
        return Repeat(
            list(self.bases.values()),
            body,
            self.rounds,
            list(self.variables.values()),
            collected,
            list(self.varying.values()),
            node,
        )

    def _slot(self, slot: tuple[Any, ...]) -> Any:
        """What the body has where the rounds have `slot`."""
        first = slot[0]
        if isinstance(first, Path):
            return self._path(slot)
        if isinstance(first, Attr):
            path = self._path(tuple(Path(attr.path) for attr in slot))
            return replace(first, path=path)
        if isinstance(first, Node | Dim):
            return self._value(slot)
        if all(type(value) is type(first) and value == first for value in slot):
            return first
        if not isinstance(first, bool | int | float):
            raise Differ
        return self._varied(slot)

    def _path(self, paths: tuple[str, ...]) -> str:
        if len(set(paths)) == 1:
            return paths[0]
        parts = [path.split(".") for path in paths]
        if len({len(part) for part in parts}) > 1:
            raise Differ
        columns = list(zip(*parts, strict=True))
        places = [i for i, column in enumerate(columns) if len(set(column)) > 1]
        if len(places) != 1:
            raise Differ
        (place,) = places
        base, names = ".".join(parts[0][:place]), list(columns[place])
        if not self.lists(base) or not _in_step(names):
            raise Differ
        if not base and not names[0].isdigit():
            raise Differ  # attributes, not elements
        mark = f"{EACH}{self.number}_{len(self.bases)}"
        found = self.bases.setdefault((base, *names), Base(base, names, mark))
        return ".".join([*parts[0][:place], found.mark, *parts[0][place + 1 :]])

    def _value(self, slot: tuple[Any, ...]) -> Any:
        values = [leaf.value if isinstance(leaf, Dim) else leaf for leaf in slot]
        made = [self.made.get(value) for value in values]
        first = slot[0]
        if all(m is None for m in made):
            return first if len(set(slot)) == 1 else self._varied(slot)
        last = made[-1]
        assert len(made) > 1
        if last is None:
            raise Differ
        if all(m == (k, last[1]) for k, m in enumerate(made)):
            return first
        expected = [(k - 1, last[1]) for k in range(1, len(made))]
        if made[0] is not None or made[1:] != expected:
            raise Differ
        variable = self._variable(values[0], last[1])
        if not isinstance(first, Dim):
            return variable.node
        if len({_size(value, first.axis) for value in values}) > 1:
            raise Differ  # unpacked before the loop
        return Dim(variable.node, first.axis)

    def _variable(self, initial: Any, made: Made) -> Variable:
        following = self._at(0, made)
        if (initial, made) not in self.variables:
            node = self._placeholder(carried, following)
            self.variables[initial, made] = Variable(node, initial, following)
        return self.variables[initial, made]

    def _varied(self, slot: tuple[Any, ...]) -> Any:
        key = tuple((type(value), value) for value in slot)
        if key not in self.varying:
            few = len(slot) > len(set(key)) == 2 or _is_even(slot)
            like = slot[0] if isinstance(slot[0], Node) else None
            node = self._placeholder(by_round if few else element, like)
            self.varying[key] = Varying(node, list(slot))
        return self.varying[key].node

    def _placeholder(self, target: Callable[..., Any], like: Node | None) -> Node:
        node = self.graph.call_function(target)
        if like is not None:
            node.meta = {k: like.meta[k] for k in DESCRIBED if k in like.meta}
        else:
            node.meta = {"hint": 0}
        return node

    def _at(self, k: int, made: Made) -> Node:
        return self.rounds[k][made[0]].outputs[made[1]]

    def _results(self) -> list[Collected]:
        """What code after the loop takes; the variables' results are noted in them."""
        taken: dict[Made, dict[int, Node]] = {}
        for node, (k, made) in self.made.items():
            if node not in self.after:
                continue
            if self.after[node] == 0:
                raise Differ  # a size that the generated code reads elsewhere than it could
            taken.setdefault(made, {})[k] = node
        count = len(self.rounds)
        by_value = {(v.following): v for v in reversed(self.variables.values())}
        collected: list[Collected] = []
        for made, kept in taken.items():
            variable = by_value.get(self._at(0, made))
            final = kept.get(count - 1)
            if final is not None and (len(kept) == 1 or self.after[final] > 1):
                if variable is not None:
                    variable.result = kept.pop(count - 1)
                elif len(kept) == 1:
                    raise Differ
            if 0 in kept:
                kept[0] = self._outside(kept[0])
            if kept:
                early = self._early(variable, kept)
                collected.append(early or Collected(self._at(0, made), kept))
        return collected

    def _outside(self, node: Node) -> Node:
        """What code after the loop takes for `node`, which the loop calls by its name."""
        self.renamed[node] = self._placeholder(carried, node)
        return self.renamed[node]

    def _early(
        self, variable: Variable | None, kept: dict[int, Node]
    ) -> Collected | None:
        """What a variable is when each round begins, if all of that is taken."""
        count = len(self.rounds)
        initial = variable.initial if variable is not None else None
        if variable is None or not isinstance(initial, Node) or not self.after[initial]:
            return None
        if not set(range(count - 1)) <= set(kept):
            return None
        if count - 1 in kept:
            variable.result = kept[count - 1]
        first = self._outside(initial)
        values = [first, *(kept[k] for k in range(count - 1))]
        return Collected(variable.node, dict(enumerate(values)))


def _in_step(names: list[str]) -> bool:
    """Whether elements of a list are at equal distances; those of a dict have no numbers."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return len(set(names)) == len(names)
    numbers = list(map(int, names))
    return _is_even(numbers) and numbers[0] != numbers[1]


def _is_even(values: Any) -> bool:
    """Whether these are whole numbers with equal differences."""
    if not all(type(value) is int for value in values):
        return False
    return len({b - a for a, b in itertools.pairwise(values)}) == 1


def _size(value: Node, axis: int) -> str:
    tensor, perm = value.meta.get("val"), value.meta.get("perm")
    if not isinstance(tensor, torch.Tensor):
        return repr(value)
    return str(tensor.shape[perm[axis] if perm else axis])
