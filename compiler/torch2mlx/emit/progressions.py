"""Expressions that are the same but for numbers that grow evenly: one expression in a counter.

[Layer(64), Layer(96), Layer(128)]   ->   Layer(64 + 32 * i), for i from 0
"""

from __future__ import annotations

import ast
import copy
import itertools

from torch2mlx.emit import syntax

FEWEST = 4  # fewer numbers are at equal distances by chance


def progression(values: list[ast.expr], counter: str) -> ast.expr | None:
    """What all `values` are, `counter` being their number; None where there is nothing.

    Args:
        values: At least one expression.
        counter: The name of a variable.
    """
    first = ast.dump(values[0])
    if all(ast.dump(value) == first for value in values[1:]):
        return values[0]
    if len(values) < FEWEST or any(counts(value, counter) for value in values):
        return None
    values = _with_flags(values, counter)
    columns = list(zip(*map(_numbers, values), strict=False))
    steps: list[int] = []
    for column in columns:
        numbers = [node.value for node in column]
        found = {b - a for a, b in itertools.pairwise(numbers)}
        if len(found) != 1:
            return None
        steps += found
    if len({_shape(value) for value in values}) != 1:
        return None
    result = copy.deepcopy(values[0])
    by_node = {id(n): s for n, s in zip(_numbers(result), steps, strict=True) if s}
    return _Counted(by_node, counter).visit(result)


def runs(values: list[ast.expr], counter: str) -> list[tuple[ast.expr, int]]:
    """Neighbours with one expression: (expression, how many values it is)."""
    found: list[tuple[ast.expr, int]] = []
    start = 0
    while start < len(values):
        longest = 1
        for count in range(len(values) - start, 1, -1):
            if progression(values[start : start + count], counter) is not None:
                longest = count
                break
        run = values[start : start + longest]
        found.append((progression(run, counter) or run[0], longest))
        start += longest
    return found


def counts(value: ast.expr, counter: str) -> bool:
    """Whether an expression depends on the counter."""
    names = (node.id for node in ast.walk(value) if isinstance(node, ast.Name))
    return counter in names


def _with_flags(values: list[ast.expr], counter: str) -> list[ast.expr]:
    """The expressions, `i == 0` in place of what is true in the first of them only."""
    copies = [copy.deepcopy(value) for value in values]
    wanted = [True] + [False] * (len(values) - 1)
    columns = zip(*map(_flags, copies), strict=False)
    found = [c for c in columns if [node.value for node in c] == wanted]
    flags = {id(node) for column in found for node in column}
    return [_First(flags, counter).visit(value) for value in copies]


def _flags(value: ast.expr) -> list[ast.Constant]:
    constants = [n for n in ast.walk(value) if isinstance(n, ast.Constant)]
    return [node for node in constants if type(node.value) is bool]


def _numbers(value: ast.expr) -> list[ast.Constant]:
    constants = [n for n in ast.walk(value) if isinstance(n, ast.Constant)]
    return [node for node in constants if type(node.value) is int]


def _shape(value: ast.expr) -> str:
    bare = copy.deepcopy(value)
    for node in _numbers(bare):
        node.value = 0
    return ast.dump(bare)


class _First(ast.NodeTransformer):
    def __init__(self, flags: set[int], counter: str):
        self.flags = flags
        self.counter = counter

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """Whether it is the first."""
        if id(node) not in self.flags:
            return node
        return ast.Compare(syntax.name(self.counter), [ast.Eq()], [ast.Constant(0)])


class _Counted(ast.NodeTransformer):
    def __init__(self, steps: dict[int, int], counter: str):
        self.steps = steps
        self.counter = counter

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """`first + step * i`."""
        step = self.steps.get(id(node), 0)
        if not step:
            return node
        times: ast.expr = syntax.name(self.counter)
        if abs(step) != 1:
            times = ast.BinOp(ast.Constant(abs(step)), ast.Mult(), times)
        if node.value == 0 and step > 0:
            return times
        return ast.BinOp(node, ast.Add() if step > 0 else ast.Sub(), times)
