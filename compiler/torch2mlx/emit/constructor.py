"""The body of `__init__`: stored constants, then layers in call order, repeats as comprehensions."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import mlx.core

from torch2mlx.emit import formulas, progressions, syntax
from torch2mlx.emit.arguments import NAME
from torch2mlx.emit.attributes import Attributes, Place
from torch2mlx.emit.bound import Bound
from torch2mlx.hyperparameters.expressions import (
    Expression,
    Operation,
    value_of,
)
from torch2mlx.lower.facade import map_values
from torch2mlx.outline.classes import ClassSpec, Ref
from torch2mlx.outline.template import EMPTY, Construct


def body(spec: ClassSpec, attributes: Attributes, stored: list[str]) -> list[ast.stmt]:
    """The statements of `__init__`.

    Args:
        spec: The class.
        attributes: Its attributes.
        stored: Constructor parameters that `__call__` reads as attributes.
    """
    writer = _Writer(spec, attributes)
    statements = writer.scalars(stored)
    numbered = {k: p for k, p in attributes.root.children.items() if k.isdigit()}
    if numbered:
        statements.append(_set("layers", writer.elements(Place(None, numbered))))
    for root, place in attributes.root.children.items():
        if root in numbered:
            continue
        name = attributes.attribute(root)
        value = writer.place(place)
        condition = spec.optional.get(root)
        if condition is None:
            statements.append(_set(name, value))
        else:
            if place.is_list:
                statements.append(_set(name, ast.List([])))
            elif place.construct is None:
                statements.append(_set(name, ast.Dict([], [])))
            statements.append(
                ast.If(writer.condition(*condition), [_set(name, value)], [])
            )
        statements += writer.extras(syntax.name(f"self.{name}"), place)
    frozen = [attributes.attribute(root) for root in _buffers(attributes)]
    if frozen:
        keys, shallow = syntax.literal(frozen), ast.Constant(False)
        freeze = syntax.call("self.freeze", recurse=shallow, keys=keys)
        statements.append(ast.Expr(freeze))
    return formulas.with_variables(statements)


def _buffers(attributes: Attributes) -> list[str]:
    """Arrays that PyTorch does not train: MLX trains every array that is not frozen."""
    return [
        root
        for root, place in attributes.root.children.items()
        if place.construct is not None and not place.construct.trainable
    ]


def parameters(spec: ClassSpec, is_model: bool = False) -> ast.arguments:
    """`self`, `args` and the constructor parameters, with types and defaults.

    Args:
        spec: The class.
        is_model: Whether it is the model's own, which has its numbers by default.
    """
    args = [ast.arg("self")]
    if spec.arguments is not None:
        kind = functools.reduce(
            lambda a, b: ast.BinOp(a, ast.BitOr(), b),
            map(syntax.name, spec.arguments.types),
        )
        args.append(ast.arg(NAME, kind))
    args += [ast.arg(p.name, syntax.name(p.type.__name__)) for p in spec.parameters]
    defaults = [
        syntax.literal(p.default) for p in spec.parameters if p.default is not EMPTY
    ]
    if is_model and spec.arguments is not None:
        defaults = [syntax.call(spec.arguments.types[0]), *defaults]
    return ast.arguments([], args, None, [], [], None, defaults)


def _set(name: str, value: ast.expr) -> ast.stmt:
    return syntax.assign([syntax.name(f"self.{name}")], value)


class _Writer:
    def __init__(self, spec: ClassSpec, attributes: Attributes):
        self.spec = spec
        self.places = dict(_paths(attributes.root))
        self.known: dict[Expression, str] = {}

    def scalars(self, stored: list[str]) -> list[ast.stmt]:
        """The numbers that `__call__` reads, those that others are made of first."""
        origins = self.spec.arguments.stored if self.spec.arguments else {}
        plain = [name for name in stored if name not in origins]
        statements = [_set(name, syntax.name(name)) for name in plain]
        bound = [name for name in stored if name in origins]
        for name in sorted(bound, key=lambda n: formulas.length(origins[n])):
            statements.append(_set(name, self._formula(origins[name])))
            if isinstance(origins[name], Operation):
                self.known.setdefault(origins[name], name)
        return statements

    def _formula(self, expression: Expression) -> ast.expr:
        return formulas.written(expression, len(self.spec.arguments.path), self.known)

    def condition(self, parameter: str, other: Any) -> ast.expr:
        """`parameter`, or `parameter != other`."""
        if other is None:
            return syntax.name(parameter)
        return ast.Compare(syntax.name(parameter), [ast.NotEq()], [self._write(other)])

    def place(self, place: Place) -> ast.expr:
        """The expression that makes an attribute or element."""
        if place.construct is not None:
            return self._construct(place, place.construct)
        return self.elements(place) if place.is_list else self._dict(place)

    def extras(self, owner: ast.expr, place: Place) -> Iterator[ast.stmt]:
        """Arrays and modules that a layer's module owns besides the layer's own."""
        for part, child in place.children.items():
            if place.construct is not None:
                found: ast.expr = ast.Attribute(owner, part)
                yield syntax.assign([found], self.place(child))
            else:
                key = int(part) if place.is_list else part
                found = ast.Subscript(owner, ast.Constant(key))
            yield from self.extras(found, child)

    def elements(self, place: Place) -> ast.expr:
        """A list; elements that nothing is left of are identities, so that numbers stay."""
        last = max(map(int, place.children))
        identity = syntax.call("nn.Identity")
        made = {int(name): self.place(child) for name, child in place.children.items()}
        count = None
        if self.spec.arguments is not None:
            count = self.spec.arguments.counts.get(self.places.get(id(place), ""))
        # Less than the configuration says where the last elements are not used
        if count is not None and value_of(count) != last + 1:
            count = None
        number = ast.Constant(last + 1) if count is None else self._formula(count)
        return _list([made.get(i, identity) for i in range(last + 1)], number)

    def _dict(self, place: Place) -> ast.expr:
        entries = [(key, self.place(child)) for key, child in place.children.items()]
        found = list(_runs(entries))
        if len(found) == 1 and len(entries) > 1:
            return _numbered(*found[0])
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for names, value in found:
            if len(names) > 2:
                keys.append(None)  # **{...}
                values.append(_numbered(names, value))
            else:
                keys += map(ast.Constant, names)
                values += [value] * len(names)
        return ast.Dict(keys, values)

    def _construct(self, place: Place, construct: Construct) -> ast.expr:
        if construct.target is None:
            return self._array(construct)
        if isinstance(construct.target, ClassSpec):
            return self._instance(place, construct)
        function = f"nn.{construct.target.__name__}"
        signature = inspect.signature(construct.target).parameters
        args: list[ast.expr] = []
        kwargs: dict[str, ast.expr] = {}
        for name, operand in construct.arguments.items():
            value, default = self._resolved(operand), signature[name].default
            if default is EMPTY:
                args.append(self._write(value))
            elif not _is_default(value, default):
                kwargs[name] = self._write(value)
        if not args and kwargs and next(iter(kwargs)) == next(iter(signature)):
            args.append(kwargs.pop(next(iter(signature))))  # nn.Dropout(0.1)
        return syntax.call(function, args, **kwargs)

    def _instance(self, place: Place, construct: Construct) -> ast.expr:
        target: ClassSpec = construct.target
        args: list[ast.expr] = []
        if target.arguments is not None:
            path = self.spec.arguments.children[self.places[id(place)]]
            args.append(syntax.name(".".join([NAME, *path])))
        kwargs: dict[str, ast.expr] = {}
        for parameter in target.parameters:
            value = self._resolved(construct.arguments[parameter.name])
            is_plain = not kwargs and not isinstance(value, bool)
            if parameter.default is EMPTY and is_plain:
                args.append(self._write(value))
            elif value != parameter.default:
                kwargs[parameter.name] = self._write(value)
        return syntax.call(target.name, args, **kwargs)

    def _array(self, construct: Construct) -> ast.expr:
        shape = self._write(self._resolved(construct.arguments["shape"]))
        if construct.dtype == mlx.core.float32:
            return syntax.call("mx.zeros", [shape])
        return syntax.call("mx.zeros", [shape], dtype=syntax.literal(construct.dtype))

    def _resolved(self, operand: Any) -> Any:
        return map_values(self.spec.value, operand)

    def _write(self, value: Any) -> ast.expr:
        if isinstance(value, Ref):
            return syntax.name(value.name)
        if isinstance(value, Bound):
            return self._formula(value.expression)
        if isinstance(value, tuple):
            return ast.Tuple([self._write(v) for v in value])
        if isinstance(value, list):
            return ast.List([self._write(v) for v in value])
        return syntax.literal(value)


def _is_default(value: Any, default: Any) -> bool:
    """Whether an argument may be left out; 10000.0 stands for 10000."""
    same = type(value) is type(default) or {type(value), type(default)} == {int, float}
    return same and value == default


def _paths(place: Place, path: str = "") -> Iterator[tuple[int, str]]:
    """Where each place is, under PyTorch's names."""
    yield id(place), path
    for name, child in place.children.items():
        yield from _paths(child, f"{path}.{name}".strip("."))


def _runs(entries: list[tuple[str, ast.expr]]) -> Iterator[tuple[list[str], ast.expr]]:
    """Neighbours in a dict whose keys count, and whose values are one expression in `i`."""
    groups: list[list[tuple[str, ast.expr]]] = []
    for entry in entries:
        if groups and _follows(entry[0], groups[-1][-1][0]):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    for group in groups:
        names = iter([name for name, _ in group])
        for value, count in progressions.runs([value for _, value in group], "i"):
            yield list(itertools.islice(names, count)), value


def _follows(key: str, last: str) -> bool:
    """Whether a key differs from the one before it by the next number only."""
    now, before = (re.fullmatch(r"(.*?)(0|[1-9]\d*)", k) for k in (key, last))
    if not now or not before or now[1] != before[1]:
        return False
    return int(now[2]) == int(before[2]) + 1


def _numbered(names: list[str], value: ast.expr) -> ast.expr:
    """`{f"block{i}": Block() for i in range(n)}`."""
    found = re.fullmatch(r"(.*?)(0|[1-9]\d*)", names[0])
    assert found is not None
    first, number = int(found[2]), syntax.name("i")
    if progressions.counts(value, "i") and first:
        number, first = ast.BinOp(number, ast.Add(), ast.Constant(first)), 0
    key = ast.JoinedStr([ast.Constant(found[1]), ast.FormattedValue(number, -1)])
    return ast.DictComp(key, value, [_count(first, len(names), "i")])


def _list(elements: list[ast.expr], number: ast.expr) -> ast.expr:
    """A list of that number of elements, alike neighbours as a comprehension."""
    runs = progressions.runs(elements, "i")
    if len(runs) == 1 and len(elements) > 1:
        numbers = syntax.call("range", [number])
        variable = syntax.name("i" if progressions.counts(runs[0][0], "i") else "_")
        return ast.ListComp(runs[0][0], [ast.comprehension(variable, numbers, [], 0)])
    items: list[ast.expr] = []
    for element, count in runs:
        if count > 2:
            variable = "i" if progressions.counts(element, "i") else "_"
            comprehension = ast.ListComp(element, [_count(0, count, variable)])
            items.append(ast.Starred(comprehension))
        else:
            items += [element] * count
    return ast.List(items)


def _count(first: int, number: int, variable: str) -> ast.comprehension:
    bounds = [ast.Constant(first)] if first else []
    numbers = syntax.call("range", [*bounds, ast.Constant(first + number)])
    return ast.comprehension(syntax.name(variable), numbers, [], 0)
