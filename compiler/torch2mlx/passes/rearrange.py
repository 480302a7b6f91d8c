"""Shorten chains of views and permutes, and move those of leading axes past linear layers.

    x -> transpose(0, 1) -> linear -> transpose(0, 1)            x -> linear
    view(L, B * H, D) -> transpose(0, 1) -> view(B, H, L, D)     view(L, B, H, D) -> permute(1, 2, 0, 3)
    unflatten(-1, [3, D]) -> select(-2, i)                       chunk(3, -1)[i]

A rewrite is made where it leaves fewer nodes, for all sizes that the inputs may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls
from torch2mlx.passes.chains import (
    Made,
    Source,
    Tree,
    Value,
    count_nodes,
    is_rearrangement,
    mapped,
    shape_of,
)
from torch2mlx.passes.commute import commuting, generalise, split_leading
from torch2mlx.passes.index_map import IndexMap, Shape
from torch2mlx.passes.materialise import Materialiser
from torch2mlx.passes.rewrite import ORIGIN, infer, tensor_of

Call = tuple[str, ...]


def rearrange(captured: Captured) -> bool:
    """Rewrite views and permutes into fewer of them.

    Args:
        captured: Its graph is changed in place.

    Returns:
        Whether anything changed.
    """
    rewriter = _Rewriter(captured)
    changed = False
    while rewriter.sweep():
        changed = True
    return changed


@dataclass(frozen=True)
class _Input:
    """The input of an operator: `map` of `root`."""

    node: torch.fx.Node
    root: torch.fx.Node
    map: IndexMap


class _Rewriter:
    def __init__(self, captured: Captured):
        self.captured = captured
        self.graph = captured.graph
        self.materialiser = Materialiser(captured)

    def shape(self, node: torch.fx.Node) -> Shape:
        """The sizes of an array."""
        return shape_of(self.captured, node)

    def sweep(self) -> bool:
        """Try every node once; whether one was rewritten."""
        changed = False
        for node in list(self.graph.nodes):
            if _alive(node):
                changed = self._push(node) or changed
            if _alive(node):
                changed = self._collapse(node) or changed
        return changed

    def _collapse(self, node: torch.fx.Node) -> bool:
        """Write what hangs off `node` with fewer nodes."""
        tree = Tree(self.captured, node, IndexMap.identity(self.shape(node)))
        tree.leaves.pop(node, None)
        plan = {leaf: value.nodes() for leaf, value in tree.leaves.items()}
        shorter = _count_by_call(plan) < len(tree.inner)
        if not shorter or not self.materialiser.feasible(plan, node):
            return False
        self._realise(tree, plan)
        return True

    def _push(self, node: torch.fx.Node) -> bool:
        """Compute `node`, and operators that follow it, before its input is rearranged."""
        first = commuting(node)
        if first is None:
            return False
        x = self._rooted(first.x)
        leading = False
        run: list[torch.fx.Node] = []
        while not x.map.is_identity:
            found = commuting(node)
            if found is None or (run and found.x is not run[-1]):
                break
            leading |= found.leading
            run.append(node)
            if self._push_past(run, x, leading):
                return True
            if len(node.users) != 1:
                break
            node = next(iter(node.users))
        return False

    def _rooted(self, node: torch.fx.Node) -> _Input:
        """The value that `node` is a rearrangement of, as far up as that is certain."""
        chain = [node]
        while is_rearrangement(chain[-1]):
            chain.append(chain[-1].all_input_nodes[0])
        while True:
            root = chain[-1]
            value: Value | None = Value(root, IndexMap.identity(self.shape(root)))
            for step in reversed(chain[:-1]):
                value = value and mapped(self.captured, step, value)
            if value is not None:
                return _Input(node, root, value.map)
            chain.pop()

    def _push_past(self, run: list[torch.fx.Node], x: _Input, leading: bool) -> bool:
        """Compute the operators `run` before their input is rearranged, if that helps."""
        for before, after in self._ways(run[-1], x, leading):
            tree = Tree(self.captured, run[-1], after)
            plan = {leaf: value.nodes() for leaf, value in tree.leaves.items()}
            new = Value(x.root, before)
            if (
                self._helps(run, x, new, tree)
                and self.materialiser.feasible({x.node: new.nodes()}, x.root)
                and self.materialiser.feasible(plan, run[-1])
            ):
                self._replace_input(run, x, new)
                self._realise(tree, plan)
                return True
        return False

    def _ways(
        self, end: torch.fx.Node, x: _Input, leading: bool
    ) -> Iterator[tuple[IndexMap, IndexMap]]:
        """(what stays before the operators, what goes behind them), where something goes."""
        if leading:
            ways = split_leading(x.map, self.shape(end)[-1])
            yield from (
                (before, after) for before, after in ways if not after.is_identity
            )
        else:
            yield IndexMap.identity(x.map.source_shape), x.map

    def _helps(
        self, run: list[torch.fx.Node], x: _Input, new: Value, tree: Tree
    ) -> bool:
        """Whether the graph gets smaller, or the input simpler, and no chain after `run` longer."""
        end = run[-1]
        plain = Tree(self.captured, end, IndexMap.identity(self.shape(end))).leaves
        if end in tree.leaves or tree.leaves.keys() != plain.keys():
            return False
        if any(value.cost > plain[leaf].cost for leaf, value in tree.leaves.items()):
            return False
        after = _count_by_call({n: value.nodes() for n, value in tree.leaves.items()})
        change = new.cost - _dying(x.node, run[0]) + after - len(tree.inner)
        simpler = new.cost < Value(x.root, x.map).cost
        return change < 0 or (change == 0 and simpler)

    def _replace_input(self, run: list[torch.fx.Node], x: _Input, new: Value) -> None:
        nodes: dict[Made, torch.fx.Node] = {}
        made = self.materialiser.make(new.nodes(), x.node, x.root, {}, nodes)
        _move(nodes, _outermost(x.node, x.root))
        _pass_on_arguments(x.node, made)
        run[0].replace_input_with(x.node, made)
        generalise(run[0])
        for node in run:
            node.meta["val"] = infer(node)
        gone = x.node
        while not gone.users and gone is not made and is_rearrangement(gone):
            source = gone.all_input_nodes[0]
            self.graph.erase_node(gone)
            gone = source

    def _realise(self, tree: Tree, plan: dict[torch.fx.Node, Source]) -> None:
        made: dict[Call, dict[Made, torch.fx.Node]] = {}
        for leaf in sorted(plan):
            step = _outermost(leaf, tree.root)
            here = made.setdefault(_call_of(step), {})
            known = set(here)
            new = self.materialiser.make(
                plan[leaf], leaf, tree.root, tree.origins, here
            )
            if step is not leaf:
                _move({m: n for m, n in here.items() if m not in known}, step)
            _pass_on_arguments(leaf, new)
            leaf.replace_all_uses_with(new)
        for node in sorted(tree.inner, reverse=True):
            self.graph.erase_node(node)


def _outermost(leaf: torch.fx.Node, root: torch.fx.Node) -> torch.fx.Node:
    """Of the steps from `root` to `leaf`, the last that is in as few module calls as any."""
    found = step = leaf
    while step is not root and is_rearrangement(step):
        if len(_call_of(step)) < len(_call_of(found)):
            found = step
        step = step.all_input_nodes[0]
    return found


def _move(nodes: dict[Made, torch.fx.Node], step: torch.fx.Node) -> None:
    """Let `nodes` be part of the module call that `step` is part of."""
    origin = {key: step.meta[key] for key in ORIGIN if key in step.meta}
    for node in nodes.values():
        node.meta.update(origin)


def _call_of(node: torch.fx.Node) -> Call:
    """The module call that a node is part of."""
    return tuple(call.key for call in module_calls(node))


def _count_by_call(plan: dict[torch.fx.Node, Source]) -> int:
    """How many nodes a plan needs; module calls share none, or they would no longer be alike."""
    by_call: dict[Call, list[Source]] = {}
    for leaf, source in plan.items():
        by_call.setdefault(_call_of(leaf), []).append(source)
    return sum(count_nodes(sources) for sources in by_call.values())


def _pass_on_arguments(node: torch.fx.Node, new: torch.fx.Node) -> None:
    """Note on `new` the module arguments that its value is, as `node` had them."""
    if new is not node and (names := node.meta.get("forward_args")):
        known = new.meta.setdefault("forward_args", [])
        known.extend(name for name in names if name not in known)


def _alive(node: torch.fx.Node) -> bool:
    return not node._erased and tensor_of(node) is not None


def _dying(x: torch.fx.Node, user: torch.fx.Node) -> int:
    """How many nodes go when `user` no longer takes the rearrangement `x`."""
    count = 0
    while is_rearrangement(x) and list(x.users) == [user]:
        count += 1
        x, user = x.all_input_nodes[0], x
    return count
