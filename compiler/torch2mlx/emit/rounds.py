"""What depends on the round that a loop is in, as an expression: `a if i % 2 == 0 else b`."""

from __future__ import annotations

import ast
import itertools

from torch2mlx.emit import syntax


def condition(counter: ast.expr, places: list[int], count: int) -> ast.expr:
    """Whether the round is one of `places`, which are neither none nor all.

    Args:
        counter: The number of the round.
        places: Numbers of rounds, ascending.
        count: How many rounds there are.
    """
    first, last = places[0], places[-1]
    if len(places) == 1:
        return _compare(counter, ast.Eq(), last)
    if places == list(range(first, count)):
        return _compare(counter, ast.GtE(), first)
    if places == list(range(last + 1)):
        return _compare(counter, ast.Lt(), last + 1)
    for period in range(2, count // 2 + 1):
        if places == list(range(first, count, period)) and first < period:
            rest = ast.BinOp(counter, ast.Mod(), ast.Constant(period))
            return _compare(rest, ast.Eq(), first)
    return ast.Compare(counter, [ast.In()], [syntax.literal(tuple(places))])


def _compare(value: ast.expr, operator: ast.cmpop, number: int) -> ast.expr:
    return ast.Compare(value, [operator], [ast.Constant(number)])


def choice(counter: ast.expr, values: list[ast.expr]) -> ast.expr:
    """The value of the round, of two different ones or of numbers at equal distances."""
    kinds = list(dict.fromkeys(ast.dump(value) for value in values))
    if len(kinds) > 2 or _is_counted(values):
        return _number(counter, [ast.literal_eval(value) for value in values])
    if len(kinds) == 1:
        return values[0]
    places = [
        [i for i, value in enumerate(values) if ast.dump(value) == kind]
        for kind in kinds
    ]
    tests = [condition(counter, found, len(values)) for found in places]
    one = min((0, 1), key=lambda k: (isinstance(tests[k].ops[0], ast.In), k))  # type: ignore[attr-defined]
    chosen, other = values[places[one][0]], values[places[1 - one][0]]
    return ast.IfExp(tests[one], chosen, other)


def _is_counted(values: list[ast.expr]) -> bool:
    """Whether the values are a number, the next one, and so on."""
    numbers = [value.value for value in values if isinstance(value, ast.Constant)]
    integers = [number for number in numbers if type(number) is int]
    if len(integers) < len(values) or len(values) < 2:
        return False
    return integers == list(range(integers[0], integers[0] + len(integers)))


def _number(counter: ast.expr, numbers: list[int]) -> ast.expr:
    """`counter * 2 + 1`, for numbers at equal distances."""
    step = numbers[1] - numbers[0]
    value = counter
    if step != 1:
        value = ast.BinOp(value, ast.Mult(), syntax.literal(step))
    if numbers[0]:
        value = ast.BinOp(value, ast.Add(), syntax.literal(numbers[0]))
    return value


def part(whole: ast.expr, places: list[int], size: int) -> ast.expr:
    """`whole[start:stop:step]`, the elements at `places` of a list of that size."""
    step = places[1] - places[0]
    stop: int | None = places[-1] + step
    if stop < 0 or stop >= size:
        stop = None
    first = 0 if step > 0 else size - 1
    start = None if places[0] == first else places[0]
    if start is None and stop is None and step == 1:
        return whole
    parts = (start, stop, None if step == 1 else step)
    bounds = (None if value is None else syntax.literal(value) for value in parts)
    return ast.Subscript(whole, ast.Slice(*bounds))


def sequence(values: ast.expr, sizes: dict[str, int]) -> ast.expr:
    """`xs` or `xs[::-1]` for `[xs[0], xs[1], ...]`.

    Args:
        values: A list, or anything else, which stays as it is.
        sizes: How many elements variables have.
    """
    if not isinstance(values, ast.List):
        return values
    taken = [
        value
        for value in values.elts
        if isinstance(value, ast.Subscript)
        and isinstance(value.value, ast.Name)
        and isinstance(value.slice, ast.Constant)
    ]
    names = {value.value.id for value in taken}  # type: ignore[attr-defined]
    if len(taken) < len(values.elts) or len(names) != 1 or len(taken) < 2:
        return values
    places = [value.slice.value for value in taken]  # type: ignore[attr-defined]
    if not all(type(place) is int and place >= 0 for place in places):
        return values
    steps = {b - a for a, b in itertools.pairwise(places)}
    if steps not in ({1}, {-1}):
        return values
    (name,) = names
    if name not in sizes:
        return values
    return part(taken[0].value, places, sizes[name])
