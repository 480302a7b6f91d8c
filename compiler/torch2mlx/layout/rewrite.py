"""Rewrite a lowered graph to the orders that were chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Weight
from torch2mlx.layout.fold import argument_names
from torch2mlx.layout.perms import (
    Perm,
    channels_last,
    identity,
    inverse,
    last,
    nbytes,
    ordered,
    permutation,
    rank,
    transposed,
)
from torch2mlx.layout.problem import Problem, by_author
from torch2mlx.lower.facade import map_values

Node = torch.fx.Node


@dataclass(frozen=True)
class Transpose:
    """A transpose that the layout assignment leaves in the graph.

    Attributes:
        bytes: The size of the array for the example inputs.
        why: Which operation needs it.
        source_line: The author's line of that operation.
        module: The path of its module.
    """

    bytes: int
    why: str
    source_line: str
    module: str


class Rewriter:
    """Rewrites the graph of a solved problem in place.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.graph = problem.graph
        self.stored: dict[Node, Node] = {}
        self.others: dict[Node, Node] = {}
        self.transposes: list[Transpose] = []

    def run(self) -> list[Transpose]:
        """Rewrite all nodes; the transposes that are left and not the author's."""
        for node in list(self.graph.nodes):
            self.stored[node] = node
            if node.op == "output":
                self._output(node)
            elif permutation(node) is not None and rank(node) > 2:
                self._transpose(node)
            elif node.target is intrinsics.dim:
                self._dim(node)
            elif self.problem.computes_last(node):
                self._compute_last(node)
            else:
                self._take(node)
            if self.problem.stores_last(node) and self.stored[node] is node:
                self._store_last(node)
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users:
                self.graph.erase_node(node)
        return self.transposes

    def _take(self, node: Node) -> None:
        """Give a node its operands in PyTorch's order."""

        def version(value: Any) -> Any:
            return (
                self._version(value, False, node) if isinstance(value, Node) else value
            )

        node.args = map_values(version, tuple(node.args))
        node.kwargs = map_values(version, dict(node.kwargs))

    def _compute_last(self, node: Node) -> None:
        rule = self.problem.rules[node]

        def version(value: Any) -> Any:
            if not isinstance(value, Node):
                return value
            if value in rule.weights:
                return _reshaped_weight(value, *rule.weights[value])
            return self._version(value, value in rule.operands, node)

        args, kwargs = map_values(version, rule.args), map_values(version, rule.kwargs)
        node.target, node.args, node.kwargs = rule.target, args, kwargs
        for linear, inner in rule.linears.items():
            _reorder_inputs(linear, inner)

    def _store_last(self, node: Node) -> None:
        """Note that the result is channels-last; parameters are in the file."""
        perm = channels_last(node)
        if node.op == "get_attr":
            node.meta["weight"] = node.meta["weight"].then("transpose", perm)
        node.meta["hint"] = transposed(node.meta["hint"], perm)
        if not isinstance(node.meta["hint"], list):
            node.meta["perm"] = perm

    def _transpose(self, node: Node) -> None:
        """A transpose between the orders of its operand and its result, often none."""
        (value,) = node.all_input_nodes
        wanted = self.problem.takes_last(node, value)
        is_last = self.problem.stores_last(value) if wanted is None else wanted
        source = self._version(value, is_last, node)
        before = channels_last(value) if is_last else identity(rank(value))
        after = (
            channels_last(node)
            if self.problem.stores_last(node)
            else identity(rank(node))
        )
        perm = permutation(node)
        assert perm is not None
        order = tuple(before.index(axis) for axis in ordered(perm, after))
        if order != identity(len(order)):
            node.args, node.kwargs = (source, order), {}
            return
        self.stored[node] = source
        source.meta["forward_args"] = argument_names(source) + argument_names(node)
        if "val" not in source.meta and "val" in node.meta:
            source.meta["val"] = node.meta["val"]
            source.meta.pop("perm", None)
            if after != identity(rank(node)):
                source.meta["perm"] = after

    def _dim(self, node: Node) -> None:
        value, axis = node.args
        assert isinstance(value, Node)
        assert isinstance(axis, int)
        if self.problem.stores_last(value):
            axis = channels_last(value).index(axis % rank(value))
        node.args = (self.stored[value], axis)

    def _output(self, node: Node) -> None:
        values: Any = node.args[0]
        perms: list[Perm | None] = []
        results: list[Any] = []
        for value, pinned in zip(values, self.problem.pins.outputs, strict=True):
            perm = None
            if isinstance(value, Node):
                is_last = self.problem.stores_last(value) and not pinned
                if self._is_returned_otherwise(value, is_last, results):
                    is_last = not is_last
                perm = channels_last(value) if is_last else None
                value = self._returned(value, is_last, node)
            results.append(value)
            perms.append(perm)
        stores = map_values(self.stored.__getitem__, tuple(node.args[1:]))
        node.args = (results, *stores)
        node.meta["perms"] = perms

    def _is_returned_otherwise(
        self, value: Node, is_last: bool, results: list[Any]
    ) -> bool:
        """Whether the array is an output already, as what it is in the other order."""
        if (
            self.problem.stores_last(value) != is_last
            or self.stored[value] not in results
        ):
            return False
        return (self.stored[value].meta.get("perm") is not None) != is_last

    def _returned(self, value: Node, is_last: bool, output: Node) -> Node:
        """The node that has an output, which says what the output is."""
        found = self._version(value, is_last, output)
        if "val" in value.meta:
            found.meta["val"] = value.meta["val"]
        found.meta.pop("perm", None)
        if is_last:
            found.meta["perm"] = channels_last(value)
        return found

    def _version(self, value: Node, is_last: bool, user: Node) -> Node:
        """The node that has `value` in an order, transposed where it is stored in the other."""
        stored = self.stored[value]
        if rank(value) < 3 or self.problem.stores_last(value) == is_last:
            return stored
        if value not in self.others:
            perm = channels_last(value)
            perm = perm if is_last else inverse(perm)
            with self.graph.inserting_after(stored):
                new = self.graph.call_function(mx.transpose, (stored, perm))
            new.meta.update(
                hint=transposed(stored.meta["hint"], perm), origin=value.meta["origin"]
            )
            if "val" in value.meta:
                new.meta["val"] = value.meta["val"]
            if is_last:
                new.meta["perm"] = perm
            self.others[value] = new
            self._report(value, is_last, user)
        return self.others[value]

    def _report(self, value: Node, is_last: bool, user: Node) -> None:
        if any(by_author(n) and permutation(n) is not None for n in (value, user)):
            return
        user = self._culprit(user, is_last)
        where = value if user.op == "output" else user
        origin = where.meta["origin"]
        calls = module_calls(origin)
        self.transposes.append(
            Transpose(
                nbytes(value),
                _reason(user, is_last),
                source_line(origin),
                calls[-1].path if calls else "",
            )
        )

    def _culprit(self, user: Node, is_last: bool) -> Node:
        """The operation at or behind `user` that needs the order that it takes."""
        pending = dict.fromkeys([user])
        for node in (queue := list(pending)):
            transposes = permutation(node) is not None and rank(node) > 2
            if (
                transposes
                if is_last
                else not transposes and node not in self.problem.rules
            ):
                return node
            new = [n for n in node.users if n not in pending]
            pending.update(dict.fromkeys(new))
            queue.extend(new)
        return user


def _reason(user: Node, is_last: bool) -> str:
    if user.op == "output":
        return "the model's output has PyTorch's axis order"
    name = user.meta["origin"].target
    if is_last:
        return f"{name} is channels-last in MLX"
    if user.target in (mx.reshape, mx.flatten, mx.unflatten):
        return f"{name} merges the channel axis with others"
    return f"{name} takes its axes in PyTorch's order"


def _reshaped_weight(node: Node, weight: Weight, shape: tuple[int, ...]) -> Node:
    """The parameter that `node` was computed from, in the shape and order of `weight`."""
    source = node
    while source.op != "get_attr":
        source = source.all_input_nodes[0]
    source.meta["weight"] = weight
    source.meta["hint"] = mx.zeros(shape, source.meta["hint"].dtype)
    source.meta.pop("val", None)
    return source


def _reorder_inputs(linear: Node, inner: tuple[int, ...]) -> None:
    """Let a linear layer take [*S, C] flattened, not `inner`, which is [C, *S]."""
    layer = linear.meta["layer"]
    out = linear.meta["hint"].shape[-1]
    weight = layer.weights["weight"].then("reshape", (out, *inner))
    weight = weight.then("transpose", last(len(inner) + 1))
    weight = weight.then("reshape", (out, math.prod(inner)))
    layer.weights = {**layer.weights, "weight": weight}
