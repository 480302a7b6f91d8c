"""The body of `__init__`: stored constants, then layers in call order, repeats as comprehensions."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import mlx.core

from torch2mlx.emit import syntax
from torch2mlx.emit.attributes import Attributes, Place
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
    writer = _Writer(spec)
    statements = [_set(name, syntax.name(name)) for name in stored]
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
        statements += writer.extras(name, place)
    frozen = [attributes.attribute(root) for root in _buffers(attributes)]
    if frozen:
        keys, shallow = syntax.literal(frozen), ast.Constant(False)
        freeze = syntax.call("self.freeze", recurse=shallow, keys=keys)
        statements.append(ast.Expr(freeze))
    return statements


def _buffers(attributes: Attributes) -> list[str]:
    """Arrays that PyTorch does not train: MLX trains every array that is not frozen."""
    return [
        root
        for root, place in attributes.root.children.items()
        if place.construct is not None and not place.construct.trainable
    ]


def parameters(spec: ClassSpec) -> ast.arguments:
    """`self` and the constructor parameters, with types and defaults."""
    args = [ast.arg("self")]
    args += [ast.arg(p.name, syntax.name(p.type.__name__)) for p in spec.parameters]
    defaults = [
        syntax.literal(p.default) for p in spec.parameters if p.default is not EMPTY
    ]
    return ast.arguments([], args, None, [], [], None, defaults)


def _set(name: str, value: ast.expr) -> ast.stmt:
    return syntax.assign([syntax.name(f"self.{name}")], value)


class _Writer:
    def __init__(self, spec: ClassSpec):
        self.spec = spec

    def condition(self, parameter: str, other: Any) -> ast.expr:
        """`parameter`, or `parameter != other`."""
        if other is None:
            return syntax.name(parameter)
        return ast.Compare(syntax.name(parameter), [ast.NotEq()], [self._write(other)])

    def place(self, place: Place) -> ast.expr:
        """The expression that makes an attribute or element."""
        if place.construct is not None:
            return self._construct(place.construct)
        return self.elements(place) if place.is_list else self._dict(place)

    def extras(self, name: str, place: Place) -> list[ast.stmt]:
        """Arrays that a layer's module owns besides the layer's own."""
        if place.construct is None:
            return []
        return [
            _set(f"{name}.{part}", self.place(p)) for part, p in place.children.items()
        ]

    def elements(self, place: Place) -> ast.expr:
        """A list; elements that nothing is left of are identities, so that numbers stay."""
        last = max(map(int, place.children))
        identity = syntax.call("nn.Identity")
        made = {int(name): self.place(child) for name, child in place.children.items()}
        return _list([made.get(i, identity) for i in range(last + 1)])

    def _dict(self, place: Place) -> ast.expr:
        entries = [(key, self.place(child)) for key, child in place.children.items()]
        runs: list[list[tuple[str, ast.expr]]] = []
        for entry in entries:
            if runs and _follows(entry, runs[-1][-1]):
                runs[-1].append(entry)
            else:
                runs.append([entry])
        if len(runs) == 1 and len(entries) > 1:
            return _numbered(runs[0])
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for run in runs:
            if len(run) > 2:
                keys.append(None)  # **{...}
                values.append(_numbered(run))
            else:
                keys += [ast.Constant(key) for key, _ in run]
                values += [value for _, value in run]
        return ast.Dict(keys, values)

    def _construct(self, construct: Construct) -> ast.expr:
        if construct.target is None:
            return self._array(construct)
        if isinstance(construct.target, ClassSpec):
            return self._instance(construct)
        function = f"nn.{construct.target.__name__}"
        signature = inspect.signature(construct.target).parameters
        args: list[ast.expr] = []
        kwargs: dict[str, ast.expr] = {}
        for name, operand in construct.arguments.items():
            value, default = self._resolved(operand), signature[name].default
            if default is EMPTY:
                args.append(self._write(value))
            elif type(value) is not type(default) or value != default:
                kwargs[name] = self._write(value)
        if not args and kwargs and next(iter(kwargs)) == next(iter(signature)):
            args.append(kwargs.pop(next(iter(signature))))  # nn.Dropout(0.1)
        return syntax.call(function, args, **kwargs)

    def _instance(self, construct: Construct) -> ast.expr:
        target: ClassSpec = construct.target
        args: list[ast.expr] = []
        kwargs: dict[str, ast.expr] = {}
        for parameter in target.parameters:
            value = self._resolved(construct.arguments[parameter.name])
            if parameter.default is EMPTY:
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
        if isinstance(value, tuple):
            return ast.Tuple([self._write(v) for v in value])
        if isinstance(value, list):
            return ast.List([self._write(v) for v in value])
        return syntax.literal(value)


def _follows(entry: tuple[str, ast.expr], last: tuple[str, ast.expr]) -> bool:
    """Whether a dict's entry differs from the one before it by the next number in its key only."""
    now, before = (re.fullmatch(r"(.*?)(0|[1-9]\d*)", key) for key, _ in (entry, last))
    if (
        not now
        or not before
        or now[1] != before[1]
        or int(now[2]) != int(before[2]) + 1
    ):
        return False
    return ast.dump(entry[1]) == ast.dump(last[1])


def _numbered(run: list[tuple[str, ast.expr]]) -> ast.expr:
    """`{f"block{i}": Block() for i in range(n)}`."""
    first = re.fullmatch(r"(.*?)(0|[1-9]\d*)", run[0][0])
    assert first is not None
    number = ast.FormattedValue(syntax.name("i"), -1)
    key = ast.JoinedStr([ast.Constant(first[1]), number])
    return ast.DictComp(key, run[0][1], [_count(int(first[2]), len(run), "i")])


def _list(elements: list[ast.expr]) -> ast.expr:
    """A list, equal neighbours as a comprehension."""
    runs: list[tuple[ast.expr, int]] = []
    for element in elements:
        if runs and ast.dump(runs[-1][0]) == ast.dump(element):
            runs[-1] = (element, runs[-1][1] + 1)
        else:
            runs.append((element, 1))
    if len(runs) == 1 and len(elements) > 1:
        return ast.ListComp(runs[0][0], [_count(0, len(elements), "_")])
    items: list[ast.expr] = []
    for element, count in runs:
        if count > 2:
            items.append(ast.Starred(ast.ListComp(element, [_count(0, count, "_")])))
        else:
            items += [element] * count
    return ast.List(items)


def _count(first: int, number: int, variable: str) -> ast.comprehension:
    bounds = [ast.Constant(first)] if first else []
    numbers = syntax.call("range", [*bounds, ast.Constant(first + number)])
    return ast.comprehension(syntax.name(variable), numbers, [], 0)
