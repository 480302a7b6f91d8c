"""The statements of a function before they have names: one for each item, results unpacked at once."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch.fx

from torch2mlx.emit.order import arranged
from torch2mlx.ir import intrinsics
from torch2mlx.ir.regions import ITERATIONS, JOINS, Region, element, loop, parts
from torch2mlx.outline.operands import (
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    Repeat,
    flat,
    leaves,
    region_of,
    values_in,
)
from torch2mlx.outline.residuals import mark
from torch2mlx.outline.template import Hole, Template, root
from torch2mlx_templates.helpers import assign


@dataclass
class Result:
    """`return values`."""

    values: list[Any]


@dataclass
class Unpack:
    """`a, b = function(...)`; a result that nothing uses is None."""

    op: Op | Invoke
    targets: list[torch.fx.Node | None]


@dataclass
class Statement:
    """One statement.

    Attributes:
        item: What it does.
        outputs: The values that it defines.
        mark: What it is among the optional parts of the class; "" where no instance lacks it.
        where: The branches and loops that it is in, where its item does not know.
    """

    item: Item | Result | Unpack
    outputs: list[torch.fx.Node] = field(default_factory=list)
    mark: str = ""
    where: Region | None = None

    @property
    def optional(self) -> bool:
        """Whether some instances lack it."""
        return bool(self.mark)

    @property
    def flow(self) -> int:
        """For an optional sum: which operand stands for it where it is left out."""
        return int(self.mark.partition("+")[0])

    @property
    def single(self) -> bool:
        """Whether it can be an expression within another statement."""
        return (
            len(self.outputs) == 1
            and isinstance(self.item, Op | Invoke)
            and not self.optional
            and not self.is_write
            and not self.is_store
            and not self.is_block
        )

    @property
    def node(self) -> torch.fx.Node | None:
        """The function call that it is; None for another statement."""
        item = self.item.op if isinstance(self.item, Unpack) else self.item
        return item.node if isinstance(item, Op) else None

    @property
    def region(self) -> Region:
        """The branches and loops that it is in."""
        if self.where is not None:
            return self.where
        item = self.item.op if isinstance(self.item, Unpack) else self.item
        return () if isinstance(item, Result) else region_of(item)

    @property
    def is_block(self) -> bool:
        """Whether it is a branch, a loop, or a variable of one."""
        return self.node is not None and self.node.target in JOINS | ITERATIONS

    @property
    def is_write(self) -> bool:
        """Whether it writes to a part of an array, which is a statement of its own."""
        return isinstance(self.item, Op) and self.item.node.target is assign

    @property
    def is_store(self) -> bool:
        """Whether it writes to a buffer or an input."""
        return isinstance(self.item, Op) and self.item.node.target is intrinsics.store

    def operands(self) -> Any:
        """Its operands."""
        item = self.item.op if isinstance(self.item, Unpack) else self.item
        if isinstance(item, Result):
            return item.values
        if isinstance(item, Op) and item.node.target is loop:
            test, _, following, _, collected = item.args
            return (test, following, collected)  # the rest are its own variables
        return (item.args, item.kwargs) if isinstance(item, Op) else item.args

    def values(self) -> list[torch.fx.Node]:
        """The values that it uses, as often as it does."""
        return list(values_in(self.operands()))

    def arrays(self) -> list[torch.fx.Node]:
        """The values that it uses for more than their sizes."""
        return [
            leaf for leaf in leaves(self.operands()) if isinstance(leaf, torch.fx.Node)
        ]

    def dims(self) -> list[Dim]:
        """The sizes that it reads, as often as it does."""
        return [leaf for leaf in leaves(self.operands()) if isinstance(leaf, Dim)]

    def longest(self) -> list[Any]:
        """The operands that are lines of their own."""
        operands = self.operands()
        return list(operands) if isinstance(operands, list) else []

    def targets(self) -> list[torch.fx.Node | None]:
        """The values that it assigns, in order."""
        if isinstance(self.item, Unpack):
            return self.item.targets
        return list(self.outputs)

    def position(self, node: torch.fx.Node) -> int | None:
        """Which of several results `node` is; None when it is the only one."""
        targets = self.targets()
        return targets.index(node) if len(targets) > 1 else None

    def takes_inline(self, node: torch.fx.Node) -> bool:
        """Whether the expression of `node` can stand in this statement: it is evaluated once."""
        if isinstance(self.item, Loop):
            carried = [self.item.args[i] for i in self.item.carried]
            return any(arg is node for arg in carried)
        if isinstance(self.item, Op) and self.optional:
            return self.item.args[self.flow] is node
        return True


@dataclass
class Made:
    """What a generated statement was made of.

    Attributes:
        nodes: The values that it computes, those written within its expression first.
        names: What its variables hold afterwards.
    """

    nodes: list[torch.fx.Node]
    names: dict[str, torch.fx.Node] = field(default_factory=dict)


def statements_of(template: Template, optional: set[str]) -> list[Statement]:
    """The statements of a class, the last one a `Result`."""
    users: dict[torch.fx.Node, list[Any]] = {}
    for item in flat(template.items):
        if isinstance(item, Repeat):
            continue
        for leaf in leaves((item.args, getattr(item, "kwargs", {}))):
            if isinstance(leaf, torch.fx.Node):
                users.setdefault(leaf, []).append(item)
            elif isinstance(leaf, Dim):
                users.setdefault(leaf.value, []).append(None)
    for value in values_in([template.outputs, *map(_ends, template.items)]):
        users.setdefault(value, []).append(None)
    statements = _statements(template.items, None, users, template, optional)
    return arranged([*statements, Statement(Result(template.outputs))])


def _statements(
    items: list[Item],
    where: Region | None,
    users: dict[torch.fx.Node, list[Any]],
    template: Template,
    optional: set[str],
) -> list[Statement]:
    statements: list[Statement] = []
    unpacked: set[torch.fx.Node] = set()
    for item in items:
        if isinstance(item, Op) and item.node in unpacked:
            continue
        if isinstance(item, Repeat):
            _, _, body = parts(item.node)
            inner = _statements(item.body, body, users, template, optional)
            statements += [*_beginning(item), *inner, _joining(item)]
            continue
        results = _parts(item, users, template)
        if results is not None:
            assert isinstance(item, Op | Invoke)
            found = [part for part in results if part is not None]
            unpacked.update(found)
            statements.append(Statement(Unpack(item, results), found, where=where))
            continue
        statement = Statement(item, item.outputs, where=where)
        if isinstance(item, Op):
            marks = [mark(item.node, position) for position in (0, 1)]
            statement.mark = next((m for m in marks if m in optional), "")
        elif isinstance(item, Invoke) and root(item) in optional:
            statement.mark = root(item)
        statements.append(statement)
    return statements


def _ends(item: Item) -> list[Any]:
    """What a loop takes to begin with, and what its rounds give."""
    if not isinstance(item, Repeat):
        return []
    values = [(v.initial, v.following) for v in item.variables]
    given = [c.value for c in item.collected]
    return [values, given, [v.values for v in item.varying]]


def _beginning(repeat: Repeat) -> list[Statement]:
    """The variables of a loop, and what its rounds take."""
    around, _, body = parts(repeat.node)
    found = [
        Statement(Op(v.node, (v.initial,), {}), [v.node], where=around)
        for v in repeat.variables
    ]
    for v in repeat.varying:
        where = around if v.node.target is element else body
        found.append(Statement(Op(v.node, (v.values,), {}), [v.node], where=where))
    return found


def _joining(repeat: Repeat) -> Statement:
    """The end of a loop."""
    elements = [v.node for v in repeat.varying if v.node.target is element]
    variables = [v.node for v in repeat.variables]
    following = [v.following for v in repeat.variables]
    collected = [c.value for c in repeat.collected if c.value not in variables]
    operands = (None, variables, following, elements, collected)
    kept = [node for c in repeat.collected for node in c.kept.values()]
    targets = [*(v.result for v in repeat.variables), *kept]
    outputs = [node for node in targets if node is not None]
    ends = Unpack(Op(repeat.node, operands, {}), targets)
    return Statement(ends, outputs, where=region_of(repeat))


def _parts(
    item: Item, users: dict[torch.fx.Node, list[Any]], template: Template
) -> list[torch.fx.Node | None] | None:
    """The results of a call that returns several, if each is taken once by its number."""
    if not isinstance(item, Op | Invoke) or len(item.outputs) != 1:
        return None
    (node,) = item.outputs
    hint = node.meta["hint"]
    if not isinstance(hint, list | tuple):
        return None
    parts: list[torch.fx.Node | None] = [None] * len(hint)
    for user in users.get(node, []):
        if not isinstance(user, Op) or user.node.target is not operator.getitem:
            return None
        number = user.args[1]
        if not isinstance(number, Hole):
            return None
        number = template.holes[number.index].value
        if parts[number] is not None:
            return None
        parts[number] = user.node
    several = sum(part is not None for part in parts) > 1
    return parts if several or node.target in JOINS else None
