"""One call of an MLX function as a node of a lowered graph, computed as its layout rule says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import sympy
import torch
import torch.fx

from torch2mlx.ir.layer import Weight
from torch2mlx.layout.perms import channels_last
from torch2mlx.layout.table import absorbed
from torch2mlx.lower.facade import map_values
from torch2mlx.lower.interpret import array_of

Node = torch.fx.Node
CAPTURED: Any = SimpleNamespace(expr=sympy.sympify)


def numbers(shape: Sequence[int], seed: int = 0) -> mx.array:
    """Numbers between 0.5 and 1.5 that all differ."""
    values = np.random.default_rng(seed).permutation(int(np.prod(shape)))
    return mx.array((values / max(values.size, 1) + 0.5).reshape(shape), mx.float32)


@dataclass
class Call:
    """A call.

    Attributes:
        target: The function.
        args: Its arguments, arrays among them.
        kwargs: Its keyword arguments.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def node_of(call: Call, parameters: Collection[int] = ()) -> Node:
    """The call in a graph; the arguments of these numbers are parameters, other arrays are inputs."""
    graph = torch.fx.Graph()
    count = 0

    def operand(value: Any) -> Any:
        nonlocal count
        if not isinstance(value, mx.array):
            return value
        name = f"x{count}"
        if count in parameters:
            node = graph.create_node("get_attr", name)
            node.meta["weight"] = Weight((name,))
        else:
            node = graph.placeholder(name)
        count += 1
        described(node, value)
        return node

    def arguments(values: Any) -> Any:
        if isinstance(values, list) and any(isinstance(v, mx.array) for v in values):
            return [operand(v) for v in values]
        return operand(values)

    args = tuple(map(arguments, call.args))
    several = isinstance(call.args[0], list) and call.target.__name__ == "getitem"
    if several:
        whole = graph.placeholder("several")
        whole.meta["hint"] = call.args[0]
        args = (whole, *args[1:])
    node = graph.call_function(call.target, args, dict(call.kwargs))
    result = call.target(*call.args, **call.kwargs)
    described(node, result)
    return node


def described(node: Node, value: Any) -> None:
    """Note on a node what it yields."""
    node.meta["hint"] = value
    if isinstance(value, mx.array):
        node.meta["val"] = torch.empty(value.shape, device="meta")


def check_rule(
    call: Call, parameters: Collection[int] = (), order: tuple[int, ...] = ()
) -> bool:
    """Compare the call with what its rule makes of it; whether there is a rule for these arguments.

    Args:
        call: The call.
        parameters: The numbers of the arguments that are parameters.
        order: The order in which the operands are stored, if that is not channels-last.
    """
    node = node_of(call, parameters)
    for operand in node.all_input_nodes if order else ():
        if operand.op == "placeholder":
            operand.meta["last"] = order
    rule = absorbed(node, CAPTURED)
    if rule is None:
        return False

    def stored(value: Any) -> Any:
        if not isinstance(value, Node):
            return value
        if value in rule.weights:
            weight, shape = rule.weights[value]
            made = array_of(weight, {value.name: value.meta["hint"]})
            assert made.shape == shape
            return made
        hint = value.meta["hint"]
        return _moved(hint, channels_last(value)) if value in rule.operands else hint

    args, kwargs = map_values(stored, rule.args), map_values(stored, rule.kwargs)
    found = rule.target(*args, **kwargs)
    expected = node.meta["hint"]
    if rule.result:
        expected = _moved(expected, channels_last(node))
    _compare(expected, found)
    return bool(rule.operands) or rule.result


def _moved(value: Any, perm: Sequence[int]) -> Any:
    if isinstance(value, list | tuple):
        return [mx.transpose(v, perm) for v in value]
    return mx.transpose(value, perm)


def _compare(expected: Any, found: Any) -> None:
    if isinstance(expected, list | tuple):
        assert len(expected) == len(found)
        for want, have in zip(expected, found, strict=True):
            _compare(want, have)
        return
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5)
