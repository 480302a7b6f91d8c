"""The statements of a function before they have names: one for each item, results unpacked at once."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch.fx

from torch2mlx.emit.order import arranged
from torch2mlx.ir import intrinsics
from torch2mlx.ir.regions import ITERATIONS, JOINS, Region, loop
from torch2mlx.outline.operands import (
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    leaves,
    region_of,
    values_in,
)
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
        optional: Whether it calls a child that some instances lack.
    """

    item: Item | Result | Unpack
    outputs: list[torch.fx.Node] = field(default_factory=list)
    optional: bool = False

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
        return True


def statements_of(template: Template, optional: set[str]) -> list[Statement]:
    """The statements of a class, the last one a `Result`."""
    users: dict[torch.fx.Node, list[Any]] = {}
    for item in template.items:
        for leaf in leaves((item.args, getattr(item, "kwargs", {}))):
            if isinstance(leaf, torch.fx.Node):
                users.setdefault(leaf, []).append(item)
            elif isinstance(leaf, Dim):
                users.setdefault(leaf.value, []).append(None)
    for value in values_in(template.outputs):
        users.setdefault(value, []).append(None)
    statements: list[Statement] = []
    unpacked: set[torch.fx.Node] = set()
    for item in template.items:
        if isinstance(item, Op) and item.node in unpacked:
            continue
        parts = _parts(item, users, template)
        if parts is not None:
            assert isinstance(item, Op | Invoke)
            found = [part for part in parts if part is not None]
            unpacked.update(found)
            statements.append(Statement(Unpack(item, parts), found))
            continue
        absent = not isinstance(item, Op) and root(item) in optional
        statements.append(
            Statement(item, item.outputs, absent and isinstance(item, Invoke))
        )
    statements.append(Statement(Result(template.outputs)))
    return arranged(statements)


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
