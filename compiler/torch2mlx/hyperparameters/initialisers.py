"""What the author's `__init__` says of an attribute, where running it has lost the expression.

`int(config.hidden_size / config.num_attention_heads)` is a plain number, `range(config.num_layers)` leaves
nothing behind: both are read in the source.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

from torch import nn

from torch2mlx.hyperparameters.expressions import (
    Expression,
    Field,
    Operation,
    combined,
    value_of,
)
from torch2mlx.hyperparameters.traced import expression_of, is_number, traced

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}


class Initialisers:
    """Reads constructors.

    Args:
        config: The configuration of the model, with traced numbers.
    """

    def __init__(self, config: Any):
        self._config = config
        self._sought = set[str]()

    def expression(self, module: nn.Module, name: str) -> Expression | None:
        """The expression of a number that is an attribute; None if no configuration has a part in it."""
        value = getattr(module, name)
        found = expression_of(value)
        if isinstance(found, Field) or not _has_plain(found):
            return found
        # Perhaps a part of it was a number that had lost its expression
        attribute = f"self.{name}"
        if attribute in self._sought:  # self.width = self.width // 2
            return None
        self._sought.add(attribute)
        try:
            nodes = _assigned(type(module), name)
            written = [self._number(node, module) for node in nodes]
        finally:
            self._sought.remove(attribute)
        if len(written) == 1 and written[0] is not None and written[0] == value:
            better = expression_of(written[0])
            return better if isinstance(better, Field | Operation) else None
        return found if isinstance(found, Operation) else None

    def argument(self, module: nn.Module, name: str, argument: str) -> Any:
        """The number that the layer at an attribute is made with."""
        layer = getattr(module, name, None)
        calls = _assigned(type(module), name)
        if len(calls) != 1 or not isinstance(calls[0], ast.Call):
            return None
        parameters = list(inspect.signature(type(layer).__init__).parameters)[1:]
        given = dict(zip(parameters, calls[0].args, strict=False))
        given |= {word.arg: word.value for word in calls[0].keywords if word.arg}
        is_made = ast.unparse(calls[0].func).endswith(type(layer).__name__)
        return (
            self._number(given[argument], module)
            if is_made and argument in given
            else None
        )

    def repetitions(self, module: nn.Module, name: str) -> Any:
        """The n of the only `range(n)` in what is assigned to an attribute."""
        ranges = [
            node
            for value in _assigned(type(module), name)
            for node in ast.walk(value)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "range"
        ]
        if len(ranges) != 1 or len(ranges[0].args) != 1:
            return None
        count = self._number(ranges[0].args[0], module)
        return count if isinstance(expression_of(count), Field | Operation) else None

    def _number(self, node: ast.expr, module: nn.Module) -> Any:
        """The traced number that an expression of `__init__` is; None if it is not known."""
        found = self._value(node, module)
        return found if is_number(found) else None

    def _value(self, node: ast.expr, module: nn.Module) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id="self"):
                return module
            case ast.Name(id=name):
                return self._named(name, module)
            case ast.Attribute(value=owner, attr=name):
                held = self._value(owner, module)
                if held is module and is_number(getattr(module, name, None)):
                    if f"self.{name}" in self._sought:
                        return None
                    origin = self.expression(module, name)
                    value = getattr(module, name)
                    return value if origin is None else traced(value, origin)
                return getattr(held, name, None)
            case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
                held = self._value(owner, module)
                return held.get(key) if isinstance(held, dict) else None
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self._number(operand, module)
                return None if value is None else -value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                sides = [self._number(side, module) for side in (left, right)]
                if None in sides:
                    return None
                origin = combined(_BINARY[type(op)], *map(expression_of, sides))
                return traced(value_of(origin), origin)
            case ast.Call(func=ast.Name(id="int"), args=[argument], keywords=[]):
                return _whole(self._number(argument, module))
        return None

    def _named(self, name: str, module: nn.Module) -> Any:
        """A local variable or parameter of `__init__`."""
        values = _assigned(type(module), name, local=True)
        # In `config = config.vision_config` the second name is the parameter's
        if len(values) == 1 and name not in self._sought:
            self._sought.add(name)
            try:
                return self._value(values[0], module)
            finally:
                self._sought.remove(name)
        if len(values) > 1:
            return None
        return (
            getattr(module, name, None)
            if hasattr(module, name)
            else self._default(name)
        )

    def _default(self, name: str) -> Any:
        return self._config if name in ("config", "cfg", "args") else None


def _has_plain(expression: Expression) -> bool:
    if isinstance(expression, Operation):
        return _has_plain(expression.left) or _has_plain(expression.right)
    return not isinstance(expression, Field)


def _whole(number: Any) -> Any:
    """`int(number)`: a division without remainder becomes one of integers."""
    origin = expression_of(number)
    if number is None or isinstance(number, int):
        return number
    whole: Expression = Operation("int", origin, 0)
    if (
        isinstance(origin, Operation)
        and origin.operator == "/"
        and number == int(number)
    ):
        whole = Operation("//", origin.left, origin.right)
    return traced(int(number), whole)


def _assigned(cls: type, name: str, local: bool = False) -> list[ast.expr]:
    """What `__init__` assigns to `self.<name>`, or to the variable `name`."""
    target = name if local else f"self.{name}"
    return _assignments(cls).get(target, [])


@functools.cache
def _assignments(cls: type) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base) or base.__module__.startswith("torch."):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base.__init__))
            tree = ast.parse(source)
        except (OSError, TypeError, SyntaxError):
            continue
        own: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    own.setdefault(ast.unparse(target), []).append(node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                own.setdefault(ast.unparse(node.target), []).append(node.value)
        found |= own
    return found
