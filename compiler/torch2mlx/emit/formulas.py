"""Expressions over a configuration as Python: `args.num_heads * self.head_dim`."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Mapping

from torch2mlx.emit import syntax
from torch2mlx.emit.arguments import NAME
from torch2mlx.hyperparameters.expressions import (
    FUNCTIONS,
    Argument,
    Expression,
    Field,
    Operation,
)
from torch2mlx.ir.names import is_variable

WIDTH = 80  # of a statement in a constructor
OPERATORS: dict[str, ast.operator] = {
    "+": ast.Add(),
    "-": ast.Sub(),
    "*": ast.Mult(),
    "/": ast.Div(),
    "//": ast.FloorDiv(),
    "%": ast.Mod(),
    "**": ast.Pow(),
}


def written(
    expression: Expression, depth: int, known: Mapping[Expression, str]
) -> ast.expr:
    """An expression as code of a constructor.

    Args:
        expression: The expression.
        depth: How many configurations `args` is within the model's.
        known: Expressions that attributes of the module have already.
    """
    if expression in known:
        return syntax.name(f"self.{known[expression]}")
    if isinstance(expression, Field):
        return syntax.name(".".join([NAME, *expression.path[depth:], expression.name]))
    if isinstance(expression, Argument):
        return syntax.name(expression.name)
    if isinstance(expression, Operation):
        if expression.operator in FUNCTIONS:
            name = (
                "int" if expression.operator == "int" else f"math.{expression.operator}"
            )
            return syntax.call(name, [written(expression.left, depth, known)])
        if (expression.operator, expression.left) == ("-", 0):
            return ast.UnaryOp(ast.USub(), written(expression.right, depth, known))
        sides = (written(e, depth, known) for e in (expression.left, expression.right))
        left, right = sides
        return ast.BinOp(left, OPERATORS[expression.operator], right)
    return syntax.literal(expression)


def length(expression: Expression) -> int:
    """How many numbers an expression is made of."""
    if isinstance(expression, Operation):
        return length(expression.left) + length(expression.right)
    return 1


def with_variables(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of a constructor; what occurs often is a variable first, where that saves lines."""
    counts: Counter[str] = Counter()
    for statement in statements:
        counts.update(_read(statement))
    long = [s for s in statements if _is_long(s)]
    names = {n for s in long for n in _read(s) if counts[n] > 1 and is_variable(n)}
    shortened = [_Shortened(names).visit(copy.deepcopy(s)) for s in statements]
    variables = [
        syntax.assign([syntax.name(name)], syntax.name(f"{NAME}.{name}"))
        for name in counts
        if name in names
    ]
    # A long call takes three lines
    if 2 * (len(long) - sum(map(_is_long, shortened))) <= len(variables):
        return statements
    return [*variables, *shortened]


def _is_long(statement: ast.stmt) -> bool:
    return len(syntax.text(statement)) > WIDTH


def _read(statement: ast.stmt) -> list[str]:
    """The numbers of `args` that a statement reads, each as often as it does."""
    return [
        node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == NAME
    ]


class _Shortened(ast.NodeTransformer):
    """Reads variables instead of the attributes of `args` that have their names."""

    def __init__(self, names: set[str]):
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        is_args = isinstance(node.value, ast.Name) and node.value.id == NAME
        if is_args and node.attr in self.names:
            return syntax.name(node.attr)
        return self.generic_visit(node)
