"""Numbers that remember the expression that they are: what is computed from them does, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch2mlx.hyperparameters.expressions import OPERATORS, Expression, combined

_METHODS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "truediv",
    "//": "floordiv",
    "%": "mod",
    "**": "pow",
}


class TracedInt(int):
    """An int with its expression."""

    expression: Expression

    def __deepcopy__(self, memo: Any) -> TracedInt:
        return self


class TracedFloat(float):
    """A float with its expression."""

    expression: Expression

    def __deepcopy__(self, memo: Any) -> TracedFloat:
        return self


def traced(value: int | float, expression: Expression) -> TracedInt | TracedFloat:
    """`value`, which is `expression`."""
    number = TracedInt(value) if isinstance(value, int) else TracedFloat(value)
    number.expression = expression
    return number


def expression_of(number: Any) -> Expression:
    """The expression of a number; a plain number is its own."""
    return getattr(number, "expression", number)


def is_number(value: Any) -> bool:
    """Whether `value` is an int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arithmetic(kind: str, reflected: bool) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not is_number(other):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        plain = [int(n) if isinstance(n, int) else float(n) for n in (left, right)]
        value = OPERATORS[kind](*plain)
        if not is_number(value):
            return value
        return traced(value, combined(kind, *map(expression_of, (left, right))))

    return method


for _kind, _name in _METHODS.items():
    for _cls in (TracedInt, TracedFloat):
        setattr(_cls, f"__{_name}__", _arithmetic(_kind, False))
        setattr(_cls, f"__r{_name}__", _arithmetic(_kind, True))
