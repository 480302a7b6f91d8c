"""The module rows as a tree, in which equal neighbours of a list are one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch2mlx.analysis.findings import ModuleRow, Verdict


@dataclass
class Node:
    """A module, or a run of equal ones.

    Attributes:
        row: The first of them.
        label: Its name below the module that holds it, `0-11` for a run; "" for the model.
        count: How many there are.
        children: What is below it.
    """

    row: ModuleRow
    label: str
    count: int = 1
    children: list[Node] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """The operator calls of all of them."""
        return self.count * sum(self.row.calls.values())

    @property
    def parameters(self) -> int:
        """The parameters of all of them."""
        return self.count * self.row.parameters

    @property
    def flops(self) -> int:
        """The operations of all of them."""
        return self.count * self.row.flops

    @property
    def is_plain(self) -> bool:
        """Whether all that is in it maps: there is nothing to look at."""
        return self.row.verdict in (Verdict.MAPS, None)


def tree(rows: list[ModuleRow]) -> Node | None:
    """The model's node; None where no modules are known."""
    nodes: dict[str, Node] = {}
    for row in sorted(rows, key=lambda row: row.path.count(".") + bool(row.path)):
        holder, _, name = row.path.rpartition(".")
        nodes[row.path] = Node(row, name)
        if row.path and holder in nodes:
            nodes[holder].children.append(nodes[row.path])
    if "" not in nodes:
        return None
    _fold(nodes[""])
    return nodes[""]


def _fold(node: Node) -> None:
    for child in node.children:
        _fold(child)
    folded: list[Node] = []
    for child in node.children:
        last = folded[-1] if folded else None
        if last is not None and child.label.isdigit() and _shape(last) == _shape(child):
            last.label = f"{last.label.partition('–')[0]}–{child.label}"
            last.count += 1
        else:
            folded.append(child)
    node.children = folded


def _shape(node: Node) -> Any:
    row = node.row
    return (
        row.cls,
        row.verdict,
        row.becomes,
        row.parameters,
        row.flops,
        tuple(row.calls.items()),
        tuple((child.label, child.count, _shape(child)) for child in node.children),
    )
