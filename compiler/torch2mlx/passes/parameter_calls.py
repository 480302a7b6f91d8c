"""ATen calls on weights as the calls that the weight plan can make: see `torch2mlx.weights.expression`.

rsqrt(add(variance, 1e-05))     ->     number 1e-05; add (0, 1); rsqrt (2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.fx

from torch2mlx.passes.rewrite import arguments, tensor_of
from torch2mlx.passes.views import RESHAPES
from torch2mlx.weights.expression import Expression

aten = torch.ops.aten
Node = torch.fx.Node


class Unfit(Exception):
    """The weight plan has no calls for an ATen call."""


class Result(NamedTuple):
    """A source or the result of a call, by its number."""

    number: int


class Calls:
    """An expression under construction.

    Args:
        sources: What it is made of, in order.
    """

    def __init__(self, sources: Iterable[Node]):
        self._results = {node: Result(i) for i, node in enumerate(sources)}
        self._count = len(self._results)
        self._calls: list[tuple[Any, ...]] = []

    @property
    def expression(self) -> Expression:
        """The calls so far."""
        return tuple(self._calls)

    def add(self, node: Node) -> None:
        """Add what an ATen call does.

        Raises:
            Unfit: There are no calls for it.
        """
        self._results[node] = TABLE[node.target](self, node, arguments(node))  # type: ignore[index]

    def __call__(self, name: str, *operands: Any, attributes: Any = ()) -> Result:
        """One more call; operands are nodes, results or numbers."""
        numbers = tuple(self._number(operand) for operand in operands)
        self._calls.append((name, numbers, *attributes))
        self._count += 1
        return Result(self._count - 1)

    def _number(self, operand: Any) -> int:
        if isinstance(operand, Result):
            return operand.number
        if isinstance(operand, Node):
            return self._results[operand].number
        if isinstance(operand, bool | int | float):
            return self("number", attributes=(float(operand),)).number
        raise Unfit

    def result(self, node: Node) -> Result:
        """What stands for a node."""
        return self._results[node]


def fits(node: Node) -> bool:
    """Whether the plan has calls for an ATen call whose operands are weights, of known sizes."""
    value = tensor_of(node)
    if node.op != "call_function" or value is None or node.target not in TABLE:
        return False
    operands = [tensor_of(operand) for operand in node.all_input_nodes]
    if not all(t is not None and _is_static(t) for t in (value, *operands)):
        return False
    if not (value.is_floating_point() or node.target in VIEWS):
        return False
    try:
        Calls(node.all_input_nodes).add(node)
    except Unfit:
        return False
    return True


def _is_static(value: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in value.shape)


Given = dict[str, Any]
Translation = Callable[[Calls, Node, Given], Result]


def _shape(node: Any) -> tuple[int, ...]:
    value = tensor_of(node)
    if value is None:
        raise Unfit
    return tuple(value.shape)


def _unary(name: str) -> Translation:
    return lambda calls, node, given: calls(name, node.args[0])


def _binary(name: str, right: str = "other") -> Translation:
    def translation(calls: Calls, node: Node, given: Given) -> Result:
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            raise Unfit
        return calls(name, node.args[0], given[right])

    return translation


def _rsub(calls: Calls, node: Node, given: Given) -> Result:
    if given["alpha"] != 1:
        raise Unfit
    return calls("subtract", given["other"], given["self"])


def _clamp(calls: Calls, node: Node, given: Given) -> Result:
    low, high = given.get("min"), given.get("max")
    return calls("clip", given["self"], attributes=(low, high))


def _silu(calls: Calls, node: Node, given: Given) -> Result:
    return calls("multiply", given["self"], calls("sigmoid", given["self"]))


def _softplus(calls: Calls, node: Node, given: Given) -> Result:
    if given["beta"] != 1 or given["threshold"] < 20:  # the curve is a line from there
        raise Unfit
    return calls("softplus", given["self"])


def _same(calls: Calls, node: Node, given: Given) -> Result:
    return calls.result(node.all_input_nodes[0])


def _reshape(calls: Calls, node: Node, given: Given) -> Result:
    return calls("reshape", node.args[0], attributes=(_shape(node),))


def _permute(calls: Calls, node: Node, given: Given) -> Result:
    ndim = len(_shape(node))
    order = list(range(ndim))
    if "dims" in given:
        order = [axis % ndim for axis in given["dims"]]
    elif ndim > 1:
        a, b = given.get("dim0", 0) % ndim, given.get("dim1", 1) % ndim
        order[a], order[b] = order[b], order[a]
    return calls("transpose", node.args[0], attributes=(tuple(order),))


def _slice(calls: Calls, node: Node, given: Given) -> Result:
    size = _shape(given["self"])[given["dim"]]
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(size)
    axis = given["dim"] % len(_shape(node))
    return calls("slice", given["self"], attributes=(axis, start, stop, step))


def _select(calls: Calls, node: Node, given: Given) -> Result:
    shape = _shape(given["self"])
    axis, index = given["dim"] % len(shape), given["index"] % shape[given["dim"]]
    part = calls("slice", given["self"], attributes=(axis, index, index + 1, 1))
    return calls("reshape", part, attributes=(_shape(node),))


def _index(calls: Calls, node: Node, given: Given) -> Result:
    """`x[:, indices]`."""
    found = [(a, index) for a, index in enumerate(given["indices"]) if index]
    if len(found) != 1:
        raise Unfit
    return _take(calls, given["self"], found[0][1], found[0][0])


def _index_select(calls: Calls, node: Node, given: Given) -> Result:
    axis = given["dim"] % len(_shape(node))
    return _take(calls, given["self"], given["index"], axis)


def _embedding(calls: Calls, node: Node, given: Given) -> Result:
    return _take(calls, given["weight"], given["indices"], 0)


def _take(calls: Calls, x: Node, index: Node, axis: int) -> Result:
    value = tensor_of(index)
    if value is None or value.dtype not in (torch.int32, torch.int64):
        raise Unfit
    return calls("take", x, index, attributes=(axis,))


def _linear(calls: Calls, node: Node, given: Given) -> Result:
    weight = calls("transpose", given["weight"], attributes=((1, 0),))
    if len(_shape(given["weight"])) != 2 or len(_shape(given["input"])) < 2:
        raise Unfit
    product = calls("matmul", given["input"], weight)
    return product if given["bias"] is None else calls("add", product, given["bias"])


def _matmul(calls: Calls, node: Node, given: Given) -> Result:
    if any(len(_shape(operand)) < 2 for operand in node.args[:2]):
        raise Unfit
    return calls("matmul", *node.args[:2])


def _reduced_axes(node: Node, given: Given) -> tuple[int, ...]:
    ndim = len(_shape(given["self"]))
    axes = given.get("dim")
    axes = range(ndim) if axes is None or axes == [] else axes
    return tuple(sorted(axis % ndim for axis in axes))


def _reduction(name: str) -> Translation:
    def translation(calls: Calls, node: Node, given: Given) -> Result:
        if given.get("dtype") not in (None, tensor_of(node).dtype):  # type: ignore[union-attr]
            raise Unfit
        result = calls(name, given["self"], attributes=(_reduced_axes(node, given),))
        return calls("reshape", result, attributes=(_shape(node),))

    return translation


def _variance(calls: Calls, node: Node, given: Given) -> Result:
    axes, shape = _reduced_axes(node, given), _shape(given["self"])
    mean = calls("mean", given["self"], attributes=(axes,))
    squares = calls("square", calls("subtract", given["self"], mean))
    correction = given.get("correction", int(given.get("unbiased", True)))
    correction = 1 if correction is None else correction
    count = math.prod(shape[axis] for axis in axes) - correction
    if count <= 0:
        raise Unfit
    result = calls("divide", calls("sum", squares, attributes=(axes,)), count)
    return calls("reshape", result, attributes=(_shape(node),))


def _softmax(calls: Calls, node: Node, given: Given) -> Result:
    axes = (given["dim"] % len(_shape(node)),)
    largest = calls("max", given["self"], attributes=(axes,))
    powers = calls("exp", calls("subtract", given["self"], largest))
    return calls("divide", powers, calls("sum", powers, attributes=(axes,)))


def _norm(calls: Calls, node: Node, given: Given) -> Result:
    if given["ord"] != 2 or given["dtype"] is not None:
        raise Unfit
    squares = calls("square", given["self"])
    total = calls("sum", squares, attributes=(_reduced_axes(node, given),))
    return calls("reshape", calls("sqrt", total), attributes=(_shape(node),))


def _weight_norm(calls: Calls, node: Node, given: Given) -> Result:
    ndim = len(_shape(given["v"]))
    axes = tuple(axis for axis in range(ndim) if axis != given["dim"] % ndim)
    length = calls(
        "sqrt", calls("sum", calls("square", given["v"]), attributes=(axes,))
    )
    return calls("multiply", given["v"], calls("divide", given["g"], length))


def _batch_norm(calls: Calls, node: Node, given: Given) -> Result:
    """A weight standardised per channel, by its own statistics."""
    shape = _shape(given["input"])
    if not given["training"] or given["running_mean"] is not None:
        raise Unfit
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean = calls("mean", given["input"], attributes=(axes,))
    centred = calls("subtract", given["input"], mean)
    variance = calls("mean", calls("square", centred), attributes=(axes,))
    result = calls(
        "multiply", centred, calls("rsqrt", calls("add", variance, given["eps"]))
    )
    along = (1, -1, *[1] * (len(shape) - 2))
    channels = tuple(shape[1] if size == -1 else size for size in along)
    for name, key in (("multiply", "weight"), ("add", "bias")):
        if given[key] is not None:
            vector = calls("reshape", given[key], attributes=(channels,))
            result = calls(name, result, vector)
    return result


def _concatenate(calls: Calls, node: Node, given: Given) -> Result:
    axis = given["dim"] % len(_shape(node))
    return calls("concatenate", *given["tensors"], attributes=(axis,))


def _full(calls: Calls, node: Node, given: Given) -> Result:
    is_one = node.target in (aten.ones.default, aten.ones_like.default)
    value = given.get("fill_value", given.get("value", is_one))
    if not isinstance(value, bool | int | float):
        raise Unfit
    return calls("full", attributes=(_shape(node), float(value)))


def _slice_scatter(calls: Calls, node: Node, given: Given) -> Result:
    """What is before the slice, what is written to it, and what is behind it."""
    shape = _shape(node)
    axis, bounds = given["dim"] % len(shape), slice(given["start"], given["end"])
    start, stop, _ = bounds.indices(shape[axis])
    if given["step"] != 1 or stop < start:
        raise Unfit
    parts = [given["src"]]
    if start:
        before = calls("slice", given["self"], attributes=(axis, 0, start, 1))
        parts.insert(0, before)
    if stop < shape[axis]:
        behind = (axis, stop, shape[axis], 1)
        parts.append(calls("slice", given["self"], attributes=behind))
    return calls("concatenate", *parts, attributes=(axis,))


UNARY = "abs cos exp expm1 log log1p reciprocal rsqrt sigmoid sin sqrt square tanh"
MOVES = {
    **dict.fromkeys(RESHAPES, _reshape),
    aten.permute.default: _permute,
    aten.transpose.int: _permute,
    aten.t.default: _permute,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.alias.default: _same,
    aten.clone.default: _same,
    aten.contiguous.default: _same,
    aten.detach.default: _same,
}
CREATIONS = (
    aten.fill.Scalar,
    aten.full.default,
    aten.full_like.default,
    aten.ones.default,
    aten.ones_like.default,
    aten.zero.default,
    aten.zeros.default,
    aten.zeros_like.default,
)
# Calls that cost nothing at run time
VIEWS = frozenset(MOVES)

TABLE: dict[Any, Translation] = {
    **{getattr(aten, name).default: _unary(name) for name in UNARY.split()},
    **MOVES,
    aten.neg.default: _unary("negative"),
    aten.relu.default: lambda calls, node, given: calls("maximum", node.args[0], 0.0),
    aten.silu.default: _silu,
    aten.softplus.default: _softplus,
    aten.add.Tensor: _binary("add"),
    aten.add.Scalar: _binary("add"),
    aten.sub.Tensor: _binary("subtract"),
    aten.sub.Scalar: _binary("subtract"),
    aten.rsub.Scalar: _rsub,
    aten.mul.Tensor: _binary("multiply"),
    aten.mul.Scalar: _binary("multiply"),
    aten.div.Tensor: _binary("divide"),
    aten.div.Scalar: _binary("divide"),
    aten.pow.Tensor_Scalar: _binary("power", "exponent"),
    aten.pow.Tensor_Tensor: _binary("power", "exponent"),
    aten.maximum.default: _binary("maximum"),
    aten.minimum.default: _binary("minimum"),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.embedding.default: _embedding,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.mean.dim: _reduction("mean"),
    aten.mean.default: _reduction("mean"),
    aten.sum.dim_IntList: _reduction("sum"),
    aten.sum.default: _reduction("sum"),
    aten.amax.default: _reduction("max"),
    aten.amin.default: _reduction("min"),
    aten.var.correction: _variance,
    aten.var.dim: _variance,
    aten.softmax.int: _softmax,
    aten.linalg_vector_norm.default: _norm,
    aten._weight_norm.default: _weight_norm,
    aten.batch_norm.default: _batch_norm,
    aten.cat.default: _concatenate,
    aten.slice_scatter.default: _slice_scatter,
    **dict.fromkeys(CREATIONS, _full),
}
