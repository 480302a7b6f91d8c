"""From a lowered graph to a minimum cut: which arrays may be stored how, and which operations tie them.

For arrays of three axes either order is the other one's inverse: [B, C, L] channels-last and the transposed
[B, L, C] as it is are one and the same. Such arrays are *flipped* against each other: what is
channels-last for one side of the cut is as it is for the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir import intrinsics
from torch2mlx.layout.absorbed import Absorbed
from torch2mlx.layout.cut import ONE, OTHER, Cut
from torch2mlx.layout.perms import first, last, nbytes, permutation, rank
from torch2mlx.layout.pins import Pins
from torch2mlx.layout.reshapes import order_before_merge
from torch2mlx.layout.table import absorbed, is_sole_use
from torch2mlx.passes.views import PERMUTES

SWAP = (0, 2, 1)
Node = torch.fx.Node


def by_author(node: Node) -> bool:
    """Whether a transpose stands for one that the author wrote."""
    origin = node.meta.get("origin")
    return origin is not None and origin.target in PERMUTES


def _to_last(node: Node) -> bool:
    return rank(node) > 3 and permutation(node) == last(rank(node))


def _to_first(node: Node) -> bool:
    return rank(node) > 3 and permutation(node) == first(rank(node))


def _is_written(node: Node) -> bool:
    """Whether forward writes to an array, which then is stored in the order in which it is written."""
    return any(_writes_to(user, node) for user in node.users)


def _writes_to(node: Node, value: Node) -> bool:
    return node.target is intrinsics.store and node.args[0] is value


class Problem:
    """The layout problem of a lowered graph, and its solution.

    Args:
        graph: The graph.
        captured: The model that it was lowered from.
        pins: Which inputs and outputs keep PyTorch's order.

    Attributes:
        rules: What can be computed on channels-last arrays, and how.
    """

    def __init__(self, graph: torch.fx.Graph, captured: Captured, pins: Pins):
        self.graph = graph
        self.pins = pins
        self.rules: dict[Node, Absorbed] = {}
        for node in graph.nodes:
            if rank(node) > 3 and permutation(node) is not None:
                order = order_before_merge(node, captured)
                if order is not None and not _to_last(node) and not _to_first(node):
                    node.meta["last"] = order
            if (rule := absorbed(node, captured)) is not None:
                self.rules[node] = rule
        self.parameters = {
            node
            for node in graph.nodes
            if node.op == "get_attr" and is_sole_use(node) and not _is_written(node)
        }
        self.swaps = {node for node in graph.nodes if permutation(node) == SWAP}
        self.flipped = self._flips()
        self.other = self._solve()

    def stores_last(self, node: Node) -> bool:
        """Whether the result of `node` is stored channels-last."""
        return rank(node) > 2 and self._is_last(self._storage(node), node)

    def computes_last(self, node: Node) -> bool:
        """Whether `node` is computed on channels-last operands."""
        return node in self.rules and self._is_last(self._mode(node), node)

    def takes_last(self, node: Node, value: Node) -> bool | None:
        """Whether `node` takes its operand channels-last; None where it takes either."""
        if value not in node.all_input_nodes or rank(value) < 3:
            return False
        sides = [side for used, side in self._uses(node) if used is value]
        return self._is_last(sides[0], value) if sides else None

    def _is_last(self, variable: Hashable, node: Node) -> bool:
        on_other = variable == OTHER or variable in self.other
        return on_other != self.flipped.get(node, False)

    def _side(self, node: Node, is_last: bool) -> str:
        return OTHER if is_last != self.flipped.get(node, False) else ONE

    def _mode(self, node: Node) -> Hashable:
        """The variable of the order in which a node with a rule is computed."""
        return node if self.rules[node].result else (node, "computed")

    def _storage(self, node: Node) -> Hashable:
        """The variable, or the side, of the order in which a result is stored."""
        if node in self.rules:
            return node if self.rules[node].result else self._side(node, False)
        if node.op == "placeholder":
            writes = [user for user in node.users if _writes_to(user, node)]
            as_image = rank(node) > 3 and all(write in self.rules for write in writes)
            free = node.target not in self.pins.inputs and (as_image or not writes)
        elif node.op == "get_attr":
            free = node in self.parameters
        elif permutation(node) is not None:
            if _to_last(node) or _to_first(node):
                return self._side(node, _to_first(node))
            free = True
        else:
            free = False
        return node if free else self._side(node, False)

    def _uses(self, node: Node) -> Iterator[tuple[Node, Hashable]]:
        """The operands, each with the variable or side of the order in which it is wanted."""
        rule = self.rules.get(node)
        for value in node.all_input_nodes:
            if rank(value) < 3:
                continue
            if rule is not None and value in rule.operands:
                yield value, self._mode(node)
            elif rule is not None and value in rule.weights:
                continue
            elif node in self.swaps:
                yield value, node
            elif _to_last(node):
                yield value, self._side(value, True)
            elif (permutation(node) is not None and not _to_first(node)) or isinstance(
                node.meta.get("hint"), int
            ):
                continue
            elif node.op != "output" or self._is_pinned_output(node, value):
                yield value, self._side(value, False)

    def _is_pinned_output(self, output: Node, value: Node) -> bool:
        returned: Any = output.args[0]
        return any(
            pinned and node is value
            for node, pinned in zip(returned, self.pins.outputs, strict=True)
        )

    def _flips(self) -> dict[Node, bool]:
        """Which arrays are flipped; an operation that contradicts the others is left out."""
        ties: dict[Node, list[tuple[Node, bool, Node]]] = defaultdict(list)
        for node in self.graph.nodes:
            swapped = node in self.swaps
            tied = node.all_input_nodes if swapped else []
            for value in self.rules[node].operands if node in self.rules else tied:
                ties[node].append((value, swapped, node))
                ties[value].append((node, swapped, node))
        flipped: dict[Node, bool] = {}
        # Arrays of more axes are never flipped, so they come first.
        for start in sorted(ties, key=lambda node: rank(node) == 3):
            pending = [] if start in flipped else [start]
            flipped.setdefault(start, False)
            for node in pending:
                for other, swapped, operation in ties[node]:
                    if other not in flipped:
                        flipped[other] = flipped[node] != swapped
                        pending.append(other)
                    elif flipped[other] != (flipped[node] != swapped):
                        self.rules.pop(operation, None)
                        self.swaps.discard(operation)
        return flipped

    def _solve(self) -> set[Hashable]:
        self.other = set()
        cut = Cut()
        reasons: set[Node] = set()
        for node in self.graph.nodes:
            if (
                _to_last(node)
                or _to_first(node)
                or (permutation(node) == SWAP and not by_author(node))
            ):
                reasons.update((node, *node.all_input_nodes))
            for value, user in self._uses(node):
                several = isinstance(value.meta["hint"], list | tuple)
                cost = None if several else nbytes(value)
                name: Hashable = value
                if _writes_to(node, value):
                    name, cost = (value, "written"), None
                cut.use(self._storage(value), name, user, cost)
        return cut.solve(reasons)
