"""The graphs of branches and loops, put into the graph that calls them (see `torch2mlx.ir.regions`).

y = cond(p, true_graph, false_graph, (x, w))[0]     ->     a = linear(x, w)     # region (0, 0)
                                                           b = neg(x)           # region (0, 1)
                                                           y = choose(p, a, b)
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import unsupported
from torch2mlx.ir.regions import (
    JOINS,
    Region,
    carried,
    choose,
    element,
    loop,
    region,
)
from torch2mlx.passes.rewrite import ORIGIN, fake_mode, replace, tensor_of

higher_order = torch.ops.higher_order
Node = torch.fx.Node
NOTE = (
    "forward branches or loops on values, which are evaluated on the way: "
    "mx.compile cannot compile it"
)


def regions(captured: Captured) -> bool:
    """Put the inner graphs of `cond`, `while_loop`, `map` and `scan` into the outer one.

    Raises:
        UnsupportedError: A branch or loop takes or gives something else than arrays.
    """
    owner = captured.graph.owning_module
    assert owner is not None
    numbers = itertools.count()
    changed = False
    while calls := [n for n in captured.graph.nodes if n.target in FLATTENED]:
        for node in calls:
            _Flat(captured, owner, node, next(numbers)).run()
            changed = True
    if any(map(_evaluates, captured.graph.nodes)):
        captured.notes.append(NOTE)
    return changed


def _evaluates(node: Node) -> bool:
    """Whether it needs a value to go on."""
    return node.target in JOINS and tensor_of(node.args[0]) is not None


class _Flat:
    """One call, and what takes its place."""

    def __init__(
        self, captured: Captured, owner: torch.nn.Module, node: Node, number: int
    ):
        self.captured = captured
        self.owner = owner
        self.node = node
        self.number = number
        self.around = region(node)

    def run(self) -> None:
        values = self.node.meta["val"]
        if not all(isinstance(value, torch.Tensor) for value in values):
            raise unsupported(
                self.node, "it gives Python numbers: give arrays without axes"
            )
        results = FLATTENED[self.node.target](self, *self.node.args)
        for user in list(self.node.users):
            assert user.target is operator.getitem
            replace(user, results[user.args[1]])  # type: ignore[index]
        graphs = [n for n in self.node.all_input_nodes if n.op == "get_attr"]
        self.captured.graph.erase_node(self.node)
        for graph in graphs:
            if not graph.users:
                self.captured.graph.erase_node(graph)

    def used(self) -> list[int]:
        """Which results anything takes."""
        return sorted({user.args[1] for user in self.node.users})  # type: ignore[misc]

    def call(
        self, target: Any, args: tuple[Any, ...], value: Any, where: Region
    ) -> Node:
        """A new call in a region, right before the call that is replaced."""
        with self.captured.graph.inserting_before(self.node):
            new = self.captured.graph.call_function(target, args)
        meta = self.node.meta
        new.meta.update({key: meta[key] for key in ORIGIN if key in meta})
        new.meta.update(val=value, region=where, number=self.number)
        return new

    def join(self, target: Any, args: tuple[Any, ...], values: list[Any]) -> list[Node]:
        """The call that ties regions together, and its results."""
        joined = self.call(target, args, tuple(values), self.around)
        return [
            self.call(operator.getitem, (joined, i), value, self.around)
            for i, value in enumerate(values)
        ]

    def copied(self, graph: Any, operands: list[Any], where: Region) -> list[Any]:
        """The results of an inner graph, whose calls are copied into a region."""
        inner = self.owner.get_submodule(str(graph.target))
        copies: dict[Node, Any] = {}
        given = iter(operands)
        for step in inner.graph.nodes:  # type: ignore[union-attr]
            if step.op == "placeholder":
                copies[step] = next(given)
            elif step.op == "output":
                results = step.args[0]
                flat = results if isinstance(results, list | tuple) else [results]
                return [copies.get(value, value) for value in flat]
            elif step.op == "get_attr":
                copies[step] = self._attribute(inner, str(step.target))
            else:
                with self.captured.graph.inserting_before(self.node):
                    new = self.captured.graph.node_copy(step, copies.__getitem__)
                new.meta["region"] = where
                copies[step] = new
        raise AssertionError("a graph ends with its output")

    def _attribute(self, inner: Any, name: str) -> Node:
        """What an inner graph has as its attribute: a graph in it, or a constant."""
        value = getattr(inner, name)
        if isinstance(value, torch.Tensor):
            return self._constant(value)
        free = (f"{name}_{i}" for i in itertools.count(1))
        key = next(key for key in free if not hasattr(self.owner, key))
        self.owner.add_module(key, value)
        with self.captured.graph.inserting_before(self.node):
            return self.captured.graph.get_attr(key)

    def _constant(self, value: torch.Tensor) -> Node:
        captured = self.captured
        free = (f"constant_{i}" for i in itertools.count(1))
        key = next(key for key in free if key not in captured.tensors)
        captured.tensors[key] = value
        with captured.graph.inserting_before(next(iter(captured.graph.nodes))):
            new = captured.graph.placeholder(f"c_{key}")
        mode = fake_mode(captured.graph)
        new.meta["val"] = mode.from_tensor(value, static_shapes=True)
        captured.weights[new.name] = key
        return new


def _cond(flat: _Flat, condition: Any, first: Any, second: Any, operands: Any) -> Any:
    branches = [
        flat.copied(graph, list(operands), (*flat.around, (flat.number, part)))
        for part, graph in enumerate((first, second))
    ]
    values, used = flat.node.meta["val"], flat.used()
    if len(used) == 1:
        (only,) = used
        args = (condition, *(branch[only] for branch in branches))
        return {only: flat.call(choose, args, values[only], flat.around)}
    kept = [tuple(branch[i] for i in used) for branch in branches]
    results = flat.join(choose, (condition, *kept), [values[i] for i in used])
    return dict(zip(used, results, strict=True))


def _while(flat: _Flat, test: Any, body: Any, initial: Any, more: Any) -> Any:
    inner = (*flat.around, (flat.number, "loop"))
    variables = _variables(flat, initial, inner)
    operands = [*variables, *more]
    (again,) = flat.copied(test, operands, (*inner, (flat.number, "test")))
    following = flat.copied(body, operands, (*inner, (flat.number, "body")))
    args = (again, variables, following, [], [])
    return flat.join(loop, args, list(flat.node.meta["val"]))


def _map(flat: _Flat, body: Any, sequences: Any, more: Any) -> Any:
    inner = (*flat.around, (flat.number, "loop"))
    elements = _elements(flat, sequences, inner)
    results = flat.copied(body, [*elements, *more], (*inner, (flat.number, "body")))
    return _collected(flat, [], [], elements, results)


def _scan(flat: _Flat, body: Any, initial: Any, sequences: Any, more: Any) -> Any:
    inner = (*flat.around, (flat.number, "loop"))
    variables = _variables(flat, initial, inner)
    elements = _elements(flat, sequences, inner)
    operands = [*variables, *elements, *more]
    results = flat.copied(body, operands, (*inner, (flat.number, "body")))
    count = len(variables)
    return _collected(flat, variables, results[:count], elements, results[count:])


def _collected(
    flat: _Flat, variables: Any, following: Any, elements: Any, results: Any
) -> dict[int, Node]:
    """The results of a loop over sequences; stacks that nothing takes are left out."""
    values, count = flat.node.meta["val"], len(variables)
    taken = [i for i in flat.used() if i >= count]
    collected = [results[i - count] for i in taken]
    args = (None, variables, following, elements, collected)
    places = [*range(count), *taken]
    joined = flat.join(loop, args, [values[i] for i in places])
    return dict(zip(places, joined, strict=True))


def _variables(flat: _Flat, initial: Any, where: Region) -> list[Node]:
    found = []
    for value in initial:
        if not isinstance(value, Node) or not isinstance(
            value.meta["val"], torch.Tensor
        ):
            hint = "it carries a Python number: carry an array without axes"
            raise unsupported(flat.node, hint)
        found.append(flat.call(carried, (value,), value.meta["val"], where))
    return found


def _elements(flat: _Flat, sequences: Any, where: Region) -> list[Node]:
    return [
        flat.call(element, (value,), value.meta["val"][0], where) for value in sequences
    ]


FLATTENED: dict[Any, Callable[..., Any]] = {
    higher_order.cond: _cond,
    higher_order.while_loop: _while,
    higher_order.map_impl: _map,
    higher_order.scan: _scan,
}
