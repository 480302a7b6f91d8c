"""Patterns over captured graphs: what a fusion looks for.

    add(matmul(Tensor("x"), Tensor("y")), Number("c"))     matches     z = add.Tensor(matmul(a, b), 2.0)

A pattern binds names to operands. The same name twice means the same operand; `add` and `mul` take
their operands in either order.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, tensor_of

aten = torch.ops.aten

# As far as float32 tells numbers apart
RELATIVE = 2e-7
# Numbers that are meant to be the same, but are not
NEAR = 1e-2


class Declined(Exception):
    """Raised where a pattern matches, but its numbers or shapes do not: the message says which."""


@dataclass(frozen=True)
class Match:
    """Where a pattern was found.

    Attributes:
        captured: The graph.
        bound: Name -> operand.
        inner: The calls that the pattern spans.
        near: Why the pattern does not fit where it nearly does; all that continue a match share it.
    """

    captured: Captured
    bound: Mapping[str, Any] = field(default_factory=dict)
    inner: frozenset[torch.fx.Node] = frozenset()
    near: list[str] = field(default_factory=list, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The operand of a name in a part that need not be there."""
        return self.bound.get(name, default)

    def bind(self, name: str, value: Any) -> Match | None:
        """This match with a name bound, or None where it is bound to something else."""
        if name in self.bound:
            known = self.bound[name]
            same = known is value or (not _is_node(value) and known == value)
            return self if same else None
        return dataclasses.replace(self, bound={**self.bound, name: value})

    def spanning(self, node: torch.fx.Node) -> Match:
        """This match with one more call."""
        return dataclasses.replace(self, inner=self.inner | {node})


def _is_node(value: Any) -> bool:
    return isinstance(value, torch.fx.Node)


class Pattern:
    """What may stand in a place: `match` yields each way in which a value fits."""

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        """The matches that continue `found`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Tensor(Pattern):
    """Any array, of `ndim` axes where that is given."""

    name: str
    ndim: int | None = None

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        tensor = tensor_of(value)
        if tensor is None or self.ndim not in (None, tensor.ndim):
            return
        if (new := found.bind(self.name, value)) is not None:
            yield new


@dataclass(frozen=True)
class Number(Pattern):
    """Any Python number, or the one that is given."""

    name: str = ""
    value: float | None = None

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        if type(value) not in (int, float):
            return
        if self.value is not None and not close(value, self.value):
            _note_near(found, value, self.value)
            return
        new = found.bind(self.name, value) if self.name else found
        if new is not None:
            yield new


@dataclass(frozen=True)
class Is(Pattern):
    """An argument for which `holds` says yes, e.g. a dtype or a list of axes."""

    holds: Callable[[Any], bool]

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        if self.holds(value):
            yield found


class Call(Pattern):
    """A call of one of `targets`; arguments that are not mentioned have their default value.

    Args:
        targets: The overloads.
        *operands: Patterns of the first arguments.
        commutes: Whether the first two may stand in either order.
        **named: Patterns of further arguments, by name.
    """

    def __init__(
        self,
        targets: set[OpOverload],
        *operands: Pattern,
        commutes: bool = False,
        **named: Pattern,
    ):
        self.targets, self.operands, self.named = targets, operands, named
        self.commutes = commutes

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        if not isinstance(value, torch.fx.Node) or value.target not in self.targets:
            return
        given = _from_the_end(arguments(value))
        names = list(given)
        wanted = dict(zip(names, self.operands, strict=False)) | self.named
        if not self._others_default(value, wanted):
            return
        orders = [wanted]
        if self.commutes:
            first, second = names[:2]
            swapped = {first: wanted[second], second: wanted[first]}
            orders.append(wanted | swapped)
        for order in orders:
            pairs = [(order[name], given[name]) for name in order if name in given]
            if len(pairs) == len(order):
                yield from match_all(pairs, found.spanning(value))

    def _others_default(self, node: torch.fx.Node, wanted: Mapping[str, Any]) -> bool:
        given = arguments(node)
        assert isinstance(node.target, OpOverload)
        return all(
            given[a.name] == a.default_value
            for a in node.target._schema.arguments
            if a.name not in wanted and a.name not in IGNORED
        )


IGNORED = {"device", "layout", "pin_memory", "memory_format", "non_blocking", "copy"}


AXES = {"dim", "dim0", "dim1"}


def _from_the_end(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments with axes as negative numbers; of one axis in a list, the axis."""
    first = next(iter(given.values()), None)
    tensor = tensor_of(first[0] if isinstance(first, list | tuple) and first else first)
    if tensor is None:
        return given
    changed = {}
    for name in AXES & given.keys():
        axis = given[name]
        if isinstance(axis, list | tuple) and len(axis) == 1:
            axis = axis[0]
        if isinstance(axis, int) and axis >= 0:
            axis -= tensor.ndim
        changed[name] = axis
    return given | changed


def match_all(pairs: list[tuple[Pattern, Any]], found: Match) -> Iterator[Match]:
    """The matches of each pattern with its value, one after the other."""
    if not pairs:
        yield found
        return
    (pattern, value), *rest = pairs
    for new in pattern.match(value, found):
        yield from match_all(rest, new)


@dataclass(frozen=True)
class Node(Pattern):
    """Any call of one of `targets`, for fusions that look at its arguments themselves."""

    targets: set[OpOverload]
    name: str = ""

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        if not isinstance(value, torch.fx.Node) or value.target not in self.targets:
            return
        new = found.bind(self.name, value) if self.name else found
        if new is not None:
            yield new.spanning(value)


class Either(Pattern):
    """One of several patterns; the first that fits comes first."""

    def __init__(self, *patterns: Pattern):
        self.patterns = patterns

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        return itertools.chain.from_iterable(
            pattern.match(value, found) for pattern in self.patterns
        )


class Maybe(Pattern):
    """A call around a pattern that need not be there.

    Args:
        wrap: Makes the pattern of the call from that of its operand.
        inside: The operand.
    """

    def __init__(self, wrap: Callable[[Pattern], Pattern], inside: Pattern):
        self.choices = Either(wrap(inside), inside)

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        return self.choices.match(value, found)


class Product(Pattern):
    """A product of `factors` and a number, multiplied in any order and grouped in any way.

    Args:
        *factors: The arrays.
        number: The number that they are multiplied with, or the name to bind it to.
    """

    def __init__(self, *factors: Pattern, number: float | str = 1.0):
        self.factors, self.number = factors, number

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        flat = _flatten(value)
        if flat is None or len(flat.factors) != len(self.factors):
            return
        if isinstance(self.number, str):
            found = found.bind(self.number, flat.number) or found
        elif not close(flat.number, self.number):
            if math.isclose(flat.number, self.number, rel_tol=NEAR) and any(
                self._factors(flat, found)
            ):
                _note_near(found, flat.number, self.number)
            return
        for node in flat.inner:
            found = found.spanning(node)
        yield from self._factors(flat, found)

    def _factors(self, flat: _Flat, found: Match) -> Iterator[Match]:
        for order in itertools.permutations(flat.factors):
            yield from match_all(list(zip(self.factors, order, strict=True)), found)


@dataclass(frozen=True)
class _Flat:
    number: float
    factors: tuple[torch.fx.Node, ...]
    inner: tuple[torch.fx.Node, ...]


MULTIPLICATIONS = {aten.mul.Tensor, aten.mul.Scalar}
DIVISIONS = {aten.div.Tensor, aten.div.Scalar}


def _flatten(value: Any, top: bool = True) -> _Flat | None:
    """A product as its number and factors; products inside it only where nothing else uses them."""
    if type(value) in (int, float):
        return _Flat(float(value), (), ())
    if tensor_of(value) is None:
        return None
    opened = top or len(value.users) == 1
    if opened and value.target in MULTIPLICATIONS:
        left, right = (_flatten(arg, top=False) for arg in value.args[:2])
        if left is None or right is None:
            return None
        return _Flat(
            left.number * right.number,
            left.factors + right.factors,
            (value, *left.inner, *right.inner),
        )
    if opened and value.target in DIVISIONS and type(value.args[1]) in (int, float):
        left = _flatten(value.args[0], top=False)
        if left is None or not value.args[1]:
            return None
        return _Flat(left.number / value.args[1], left.factors, (value, *left.inner))
    return _Flat(1.0, (value,), ())


def _note_near(found: Match, number: float, wanted: float) -> None:
    if math.isclose(number, wanted, rel_tol=NEAR):
        found.near.append(f"its number {number} is not {wanted:.9g}")


def close(number: float, wanted: float) -> bool:
    """Whether two numbers are the same float32, or nearly."""
    return math.isclose(number, wanted, rel_tol=RELATIVE)


def add(x: Pattern, y: Pattern) -> Pattern:
    """x + y or y + x."""
    return Call({aten.add.Tensor, aten.add.Scalar}, x, y, commutes=True)


def mul(x: Pattern, y: Pattern) -> Pattern:
    """x * y or y * x."""
    return Call({aten.mul.Tensor, aten.mul.Scalar}, x, y, commutes=True)


def div(x: Pattern, y: Pattern) -> Pattern:
    """x / y."""
    return Call({aten.div.Tensor, aten.div.Scalar}, x, y)


def sub(x: Pattern, y: Pattern) -> Pattern:
    """x - y."""
    return Call({aten.sub.Tensor, aten.sub.Scalar}, x, y)


def power(x: Pattern, exponent: float) -> Pattern:
    """x**exponent."""
    return Call({aten.pow.Tensor_Scalar}, x, Number(value=exponent))


def square(x: Pattern) -> Pattern:
    """x**2, however it is written; `x` has to bind what tells two operands apart."""
    return Either(power(x, 2), mul(x, x), Call({aten.square.default}, x))


def cast(x: Pattern) -> Pattern:
    """`x` converted to another dtype."""
    return Call({aten.to.dtype}, x, dtype=Is(lambda dtype: True))


def keeping_last(targets: set[OpOverload], x: Pattern) -> Pattern:
    """A reduction over the last axis that keeps it."""
    return Call(targets, x, dim=Is(lambda axis: axis == -1), keepdim=Is(bool))


def uncast(node: torch.fx.Node) -> torch.fx.Node:
    """What `node` converts to another dtype, or `node` itself."""
    source = node.args[0] if node.target is aten.to.dtype else node
    assert isinstance(source, torch.fx.Node)
    return source


def dtype_of(node: torch.fx.Node) -> torch.dtype:
    """The dtype of the array that a node yields."""
    return node.meta["val"].dtype


def fixed(captured: Captured, size: Any) -> int | None:
    """A size as a number, or None where it may vary."""
    expr = captured.expr(size)
    return int(expr) if expr.is_Integer else None
