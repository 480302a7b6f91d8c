"""Numbers as expressions over the fields of a configuration."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

OPERATORS: dict[str, Callable[..., int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "int": lambda number, _: int(number),
    "log": lambda number, _: math.log(number),
    "sqrt": lambda number, _: math.sqrt(number),
}
FUNCTIONS = ("int", "log", "sqrt")


@dataclass(frozen=True)
class Field:
    """A number in a configuration.

    Attributes:
        path: Names that lead to the configuration from the model's own, () for that itself.
        name: The field's name there.
        value: What it is.
    """

    path: tuple[str, ...]
    name: str
    value: int | float


@dataclass(frozen=True)
class Argument:
    """A number that a constructor is given.

    Attributes:
        name: The constructor's parameter.
        value: What it is.
    """

    name: str
    value: int | float


@dataclass(frozen=True)
class Operation:
    """Arithmetic on two expressions; `operator` is one of `OPERATORS`, `FUNCTIONS` need the left one only."""

    operator: str
    left: Expression
    right: Expression


Expression = Field | Argument | Operation | int | float


def value_of(expression: Expression) -> int | float:
    """What an expression is."""
    if isinstance(expression, Field | Argument):
        return expression.value
    if isinstance(expression, Operation):
        left, right = value_of(expression.left), value_of(expression.right)
        return OPERATORS[expression.operator](left, right)
    return expression


def fields_of(expression: Expression) -> Iterator[Field]:
    """The fields that an expression needs."""
    return (leaf for leaf in _leaves(expression) if isinstance(leaf, Field))


def arguments_of(expression: Expression) -> Iterator[Argument]:
    """The parameters that an expression needs."""
    return (leaf for leaf in _leaves(expression) if isinstance(leaf, Argument))


def _leaves(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, Operation):
        yield from _leaves(expression.left)
        yield from _leaves(expression.right)
    else:
        yield expression


def combined(kind: str, left: Expression, right: Expression) -> Expression:
    """An operation, as a person writes it.

    >>> heads, dim = Field((), "heads", 4), Field((), "dim", 32)
    >>> combined("*", heads, combined("//", dim, heads)) == dim
    True
    >>> combined("//", combined("//", heads, 2), 2) == Operation("//", heads, 4)
    True
    """
    whole = Operation(kind, left, right)
    if (kind, right) in (("//", 1), ("*", 1)) and not isinstance(left, float):
        return left
    if (kind, left) == ("*", 1) and type(left) is int:
        return right
    if (
        kind == "//"
        and isinstance(right, int)
        and isinstance(left, Operation)
        and left.operator == "//"
        and isinstance(left.right, int)
        and min(right, left.right) > 0
    ):
        return Operation("//", left.left, left.right * right)
    for factor, quotient in ((left, right), (right, left)):
        if (
            kind == "*"
            and isinstance(quotient, Operation)
            and quotient.operator == "//"
            and quotient.right == factor
            and value_of(quotient.left) == value_of(whole)
        ):
            return quotient.left
    if kind == "*" and left == right:
        return Operation("**", left, 2)
    return whole
