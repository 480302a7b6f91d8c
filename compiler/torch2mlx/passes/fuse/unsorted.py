"""Rows that are sorted, computed one by one, and brought back: the same in the order that they had.

experts, order = sort(reshape(index, [-1]))                   y = flatten(f(unsqueeze(x, 1), index), 0, 1)
y = f(x[order // 2], experts)[argsort(order)]    ->

Kernels for the experts of a mixture want the rows of one expert together; `gather_mm` sees to that itself. Where each
row of the index [N, K] picks K experts, the rows keep these two axes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import GATHER_MM, SWIGLU
from torch2mlx.passes.commute import ALONG_LAST, POINTWISE, PRODUCTS
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import Declined, Match, Node, fixed
from torch2mlx.passes.overloads import as_written, is_tagged_pointwise
from torch2mlx.passes.rewrite import arguments, call, name_as, same_shape, tensor_of
from torch2mlx.passes.views import RESHAPES

aten = torch.ops.aten

SORTS = {aten.sort.default, aten.sort.stable}
# What computes each row for itself if no axis in this argument is the first
BY_AXIS = {
    aten.unsqueeze.default: "dim",
    aten.squeeze.dim: "dim",
    aten.chunk.default: "dim",
    aten.split.Tensor: "dim",
    aten.split_with_sizes.default: "dim",
    aten.slice.Tensor: "dim",
    aten.select.int: "dim",
    aten.softmax.int: "dim",
    aten.sum.dim_IntList: "dim",
    aten.mean.dim: "dim",
}
# These take no third axis
MATRICES = {aten.mm.default, aten.addmm.default}
# Operators of ours that compute each element for itself
OWN_POINTWISE = {SWIGLU}


class _Unsorting:
    """Computes what was computed from sorted rows, from the rows as they were.

    Args:
        captured: The graph.
        root: Where the rows come back; new calls go before it.
        order: The second result of a sort.
    """

    def __init__(self, captured: Captured, root: torch.fx.Node, order: torch.fx.Node):
        self.captured = captured
        self.root = root
        self.order = order
        self.sort: Any = order.args[0]
        self.index, self.each = self._rows(self.sort.args[0])
        self.made: dict[torch.fx.Node, torch.fx.Node] = {}
        self.sorted = self._depending()

    def _rows(self, index: Any) -> tuple[Any, int | None]:
        """The index before it was flattened, and the size of its second axis."""
        source = index.args[0] if index.target in RESHAPES else None
        shape = source.meta["val"].shape if source is not None else ()
        each = fixed(self.captured, shape[1]) if len(shape) == 2 else None
        return (index, None) if each is None else (source, each)

    def _depending(self) -> set[torch.fx.Node]:
        """Whatever is computed from the sort."""
        found = {self.sort}
        for node in self.captured.graph.nodes:
            if found.intersection(node.all_input_nodes):
                found.add(node)
        return found

    def plain(self, node: torch.fx.Node) -> torch.fx.Node:
        """What `node` is in the order that the rows had.

        Raises:
            Declined: Its rows depend on each other, or on how they are sorted.
        """
        if node not in self.made:
            new = self._moved(node)
            self.made[node] = self._computed(node) if new is None else new
            name_as(self.made[node], node)
        return self.made[node]

    def _moved(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """Rows that the order or the sorted index only picks; None where they are computed."""
        if node.target is operator.getitem and node.args == (self.sort, 0):
            return self.index
        if node.target is not aten.index.Tensor:
            return None
        given = arguments(node)
        x, indices = given["self"], given["indices"]
        if len(indices) != 1 or x in self.sorted:
            raise Declined("rows are picked in several ways")
        (index,) = indices
        if index is self.order and self._has_rows(x, 1):
            if self.each is None:
                return x
            sizes = [-1, self.each]
            return call(self.root, aten.unflatten.int, x, 0, sizes, origin=node)
        is_repeated = index.target is aten.floor_divide.default
        each = self.each if is_repeated and index.args[0] is self.order else None
        if each is not None and index.args[1] == each and self._has_rows(x, each):
            return call(self.root, aten.unsqueeze.default, x, 1, origin=node)
        if index.target is operator.getitem and index.args == (self.sort, 0):
            return call(self.root, aten.index.Tensor, x, [self.index], origin=node)
        raise Declined("the order is used in another way")

    def _has_rows(self, x: Any, times: int) -> bool:
        """Whether there are as many rows as sorted ones, `times` each."""
        rows, count = x.meta["val"].shape[0], self.order.meta["val"].shape[0]
        return self.captured.expr(rows) * times == self.captured.expr(count)

    def _computed(self, node: torch.fx.Node) -> torch.fx.Node:
        """The same call of plain rows."""
        is_by_row = _rule(node)
        if is_by_row is None or not is_by_row(self, node):
            raise Declined(f"`{node.name}` may mix the rows")
        if not isinstance(node.target, OpOverload):
            source, place = node.args
            assert isinstance(source, torch.fx.Node)
            return call(self.root, node.target, self.plain(source), place, origin=node)
        given = arguments(node)
        if node.target is GATHER_MM:
            given["sorted_indices"] = False
        if self.each is not None and node.target in BY_AXIS:
            dim = given[BY_AXIS[node.target]]
            axes = dim if isinstance(dim, list | tuple) else [dim]
            axes = [axis + (axis > 0) for axis in axes]
            given[BY_AXIS[node.target]] = axes if isinstance(dim, list) else axes[0]
        args, kwargs = as_written(node.target, list(given.values()))
        args, kwargs = torch.fx.map_arg((args, kwargs), self._argument)
        return call(self.root, node.target, *args, origin=node, **kwargs)

    def _argument(self, node: torch.fx.Node) -> torch.fx.Node:
        return self.plain(node) if node in self.sorted else node

    def flat(self, node: torch.fx.Node) -> torch.fx.Node:
        """Plain rows, one after the other."""
        if self.each is None:
            return node
        rank = node.meta["val"].ndim
        if fixed(self.captured, node.meta["val"].shape[1]) != self.each:
            sizes = [-1, self.each, *[-1] * (rank - 2)]
            node = call(self.root, aten.expand.default, node, sizes)
        return call(self.root, aten.flatten.using_ints, node, 0, 1)

    def stays_inside(self) -> bool:
        """Whether nothing else takes what is computed from sorted rows."""
        inner = {*self.made, self.root}
        picks = {self.sort, self.order, *self.sort.users}
        picks |= {n for n in self.order.users if n.target is aten.floor_divide.default}
        picks |= {n for n in self.order.users if n.target is aten.argsort.default}
        known = inner | picks
        return all(known.issuperset(n.users) for n in known - {self.root})


Rule = Callable[[_Unsorting, torch.fx.Node], bool]


def _rule(node: torch.fx.Node) -> Rule | None:
    """What says whether a call computes each row for itself."""
    target = node.target
    if target is operator.getitem:
        return lambda rows, node: node.args[0] in rows.sorted
    if target is GATHER_MM:
        return _picks_matrices
    if target in BY_AXIS:
        return _leaves_rows
    if target in ALONG_LAST and target not in MATRICES:
        return _along_last
    if target in POINTWISE | OWN_POINTWISE or is_tagged_pointwise(target):
        return _by_element
    return None


def _picks_matrices(rows: _Unsorting, node: torch.fx.Node) -> bool:
    x, weight, index = node.all_input_nodes
    return {x, index} <= rows.sorted and weight not in rows.sorted


def _leaves_rows(rows: _Unsorting, node: torch.fx.Node) -> bool:
    given = arguments(node)
    dim = given[BY_AXIS[node.target]]  # type: ignore[index]
    rank = given["self"].meta["val"].ndim + (node.target is aten.unsqueeze.default)
    axes = dim if isinstance(dim, list | tuple) else [dim]
    numbers = [v for v in given.values() if isinstance(v, torch.fx.Node)]
    is_alone = not rows.sorted.intersection(numbers) - {given["self"]}
    is_other = [isinstance(axis, int) and axis % rank != 0 for axis in axes]
    return bool(is_other) and all(is_other) and is_alone


def _along_last(rows: _Unsorting, node: torch.fx.Node) -> bool:
    place = ALONG_LAST[node.target]  # type: ignore[index]
    x, second = node.args[place : place + 2]
    others = [n for n in node.all_input_nodes if n is not x]
    if node.target in PRODUCTS:
        is_one = getattr(tensor_of(second), "ndim", 0) <= 2
    else:
        is_one = isinstance(second, list | tuple) and len(second) == 1
    rank = getattr(tensor_of(x), "ndim", 0)
    return is_one and rank > 1 and not rows.sorted.intersection(others)


def _by_element(rows: _Unsorting, node: torch.fx.Node) -> bool:
    """Whether all arrays have the sorted rows along the first axis, or one for all of them."""
    result = tensor_of(node)
    if result is None:
        return False
    for operand in node.all_input_nodes:
        value = tensor_of(operand)
        if operand in rows.sorted:
            if value is None or value.ndim != result.ndim:
                return False
        elif value is not None and value.ndim == result.ndim and value.shape[0] != 1:
            return False
    return True


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    given = arguments(root)
    rows, indices = given["self"], given["indices"]
    inverse = indices[0] if len(indices) == 1 else None
    if inverse is None or inverse.target is not aten.argsort.default:
        raise Declined("")
    order = inverse.args[0]
    is_second = order.target is operator.getitem and order.args[1] == 1
    if not is_second or order.args[0].target not in SORTS or len(inverse.args) > 1:
        raise Declined("")
    if order.meta["val"].ndim != 1 or inverse.kwargs:
        raise Declined("")
    unsorting = _Unsorting(captured, root, order)
    if rows not in unsorting.sorted:
        raise Declined("")
    before = set(captured.graph.nodes)
    try:
        new = unsorting.flat(unsorting.plain(rows))
        if not same_shape(captured, new.meta["val"], root.meta["val"]):
            raise Declined("the rows are not as many as before")
        if not unsorting.stays_inside():
            raise Declined("the sorted rows are used elsewhere too")
    except Declined:
        for node in reversed([n for n in captured.graph.nodes if n not in before]):
            captured.graph.erase_node(node)
        raise
    return new


UNSORTED_ROWS = Fusion(
    "unsorted_rows",
    frozenset({aten.index.Tensor}),
    Node({aten.index.Tensor}),
    _build,
)
