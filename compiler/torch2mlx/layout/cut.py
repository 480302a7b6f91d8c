"""The minimum cut: each array and each operation in one of two axis orders, the fewest bytes transposed.

The graph has an edge of an array's size between the array and a node for all operations that want the
other order, so that one transpose serves them all; these are tied to it without a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

import networkx

ONE, OTHER = "one order", "the other order"  # the sides of fixed arrays and operations


class Cut:
    """A minimum cut problem under construction."""

    def __init__(self) -> None:
        self.graph = networkx.DiGraph()
        self.graph.add_nodes_from((ONE, OTHER))

    def use(
        self, value: Hashable, name: Hashable, user: Hashable, cost: int | None
    ) -> None:
        """Let an operation take an array.

        Args:
            value: The variable (or side) of the order in which the array is stored.
            name: The array.
            user: The variable (or side) of the order in which it is wanted.
            cost: The array's size; None where it cannot be transposed.
        """
        if value == user:
            return
        there, back = (name, "there"), (name, "back")
        limit = {} if cost is None else {"capacity": cost}
        self.graph.add_edge(value, there, **limit)
        self.graph.add_edge(there, user)
        self.graph.add_edge(user, back)
        self.graph.add_edge(back, value, **limit)

    def solve(self, reasons: Collection[Hashable]) -> set[Hashable]:
        """The variables on the `OTHER` side, as few as possible.

        Args:
            reasons: Arrays; regions of the graph without any of them stay on the side `ONE`.
        """
        found: set[Hashable] = set()
        inner = self.graph.subgraph(n for n in self.graph if n not in (ONE, OTHER))
        for region in networkx.weakly_connected_components(inner):
            if any(
                (reason, "there") in region or reason in region for reason in reasons
            ):
                part = self.graph.subgraph({*region, ONE, OTHER})
                _, (_, other) = networkx.minimum_cut(part, ONE, OTHER)
                found |= other
        return found
