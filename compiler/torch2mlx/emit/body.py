"""The body of `__call__`: straight-line code with few, well-named statements.

A value that is used once is written where it is used while the line stays short; every other value is a
variable, named as the author named it. A variable is rebound when nothing needs its old value.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.emit import formulas, functions, naming, syntax
from torch2mlx.emit.attributes import Attributes
from torch2mlx.emit.bound import Bound
from torch2mlx.emit.sizes import Sizes
from torch2mlx.emit.statements import (
    Made,
    Result,
    Statement,
    Unpack,
    statements_of,
)
from torch2mlx.outline.classes import ClassSpec, Ref
from torch2mlx.outline.operands import (
    Attr,
    Causal,
    Dim,
    Invoke,
    Loop,
    Op,
    SizeOp,
    values_in,
)
from torch2mlx.outline.template import Hole, root

WIDTH = 78  # of a statement, which stands indented by eight or more
DEPTH = 4  # nested calls


@dataclass
class Function:
    """A generated `__call__`.

    Attributes:
        parameters: Names of its parameters.
        statements: Its body.
        stored: Constructor parameters that it reads as attributes.
        targets: Functions that it calls.
        made: What each statement of the body was made of, those within others included.
    """

    parameters: list[str]
    statements: list[ast.stmt]
    stored: list[str] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    made: dict[ast.stmt, Made] = field(default_factory=dict)


class Body:
    """Writes the `__call__` of one class.

    Args:
        spec: The class.
        attributes: Its attributes.
        names: Names of the inputs; "" where the writer shall choose.
        results: Makes the returned expression from those of the outputs; None returns them plainly.
        reads: How an input is read where it is not a parameter itself (`xs[0]`).
    """

    def __init__(
        self,
        spec: ClassSpec,
        attributes: Attributes,
        names: list[str],
        results: Any = None,
        reads: dict[torch.fx.Node, ast.expr] | None = None,
    ):
        self.spec = spec
        self.attributes = attributes
        self.results = results
        self.reads = reads or {}
        self.inputs = list(spec.template.segment.inputs)
        self.statements = statements_of(spec.template, set(spec.optional))
        self.owner = {n: s for s in self.statements for n in s.outputs}
        self.sizes = Sizes(self.statements, set(names))
        self.inlined: set[torch.fx.Node] = set()
        self.names: dict[torch.fx.Node, str] = {}
        self.function = Function([], [])
        self.emitted: list[ast.stmt] = []
        self.fixed_names = names

    def write(self) -> Function:
        """The function."""
        self._choose_inlined()
        self._name_inputs()
        kept = [s for s in self.statements if not self._is_inlined(s)]
        last = self._last_uses(kept)
        for node in self.inputs:
            if node in self.names:
                self._emit(self.sizes.statement(node, self._name(node)))
        self.emitted.clear()
        for position, statement in enumerate(kept):
            self._statement(statement, position, last)
            self._note(statement)
        return self.function

    # Which values are written where they are used

    def _is_inlined(self, statement: Statement) -> bool:
        return any(node in self.inlined for node in statement.outputs)

    def _choose_inlined(self) -> None:
        users: dict[torch.fx.Node, list[Statement]] = {}
        for statement in self.statements:
            for node in statement.values():
                users.setdefault(node, []).append(statement)
        sized = {dim.value for s in self.statements for dim in s.dims()}
        for statement in self.statements:
            if not statement.single or statement.outputs[0] in sized:
                continue
            node = statement.outputs[0]
            found = users.get(node, [])
            if len(found) == 1 and self._may_inline(statement, found[0]):
                self.inlined.add(node)
        for node in self.owner:
            self.names[node] = next(naming.candidates(self._choices(node)))
        for node, name in zip(self.inputs, self.fixed_names, strict=True):
            self.names[node] = name or "x"
        for statement in reversed(self.statements):
            if not self._is_inlined(statement):
                self._shorten(statement)
        self.names.clear()

    def _may_inline(self, statement: Statement, user: Statement) -> bool:
        """Whether what a statement defines can be written in the one statement that uses it."""
        return user.takes_inline(statement.outputs[0])

    def _shorten(self, statement: Statement) -> None:
        """Give names to parts of a statement until it is short."""
        while True:
            inner = list(self._inlined_below(statement))
            length, deep = self._extent(statement)
            if not inner or (length <= WIDTH and deep <= DEPTH):
                return
            worst = min(inner, key=lambda n: self._balance(n, length))
            self.inlined.discard(worst)
            self._shorten(self.owner[worst])

    def _balance(self, node: torch.fx.Node, length: int) -> int:
        """The longer of the two lines that naming `node` gives."""
        own = len(syntax.text(self._defining(node)))
        return max(length - own + len(self.names[node]), own)

    def _inlined_below(self, statement: Statement) -> Iterator[torch.fx.Node]:
        for node in statement.values():
            if node in self.inlined:
                yield node
                yield from self._inlined_below(self.owner[node])

    def _extent(self, statement: Statement) -> tuple[int, int]:
        """Length of the statement's longest line, and how deep its calls nest."""
        written = [self._expression(v) for v in statement.longest()]
        if isinstance(statement.item, Result) or not statement.outputs:
            head = 7
        else:
            head = sum(len(self.names[n]) + 2 for n in statement.outputs) + 1
        if isinstance(statement.item, Op | Invoke | Unpack):
            written = [self._call(statement)]
        length = max((len(syntax.text(w)) for w in written), default=0)
        return head + length, max((depth(w) for w in written), default=0)

    # Names

    def _name_inputs(self) -> None:
        taken = set(self.sizes.names.values())
        for node, given in zip(self.inputs, self.fixed_names, strict=True):
            if node in self.reads:
                # The parameter holds others, too, and lives until all are read
                self.names[node] = given
                self.function.parameters.append(given)
                continue
            preferred = [given] if given else _input_names(node)
            name = next(c for c in naming.candidates(preferred) if c not in taken)
            taken.add(name)
            self.names[node] = name
            self.function.parameters.append(name)

    def _choices(self, node: torch.fx.Node, flowing: Sequence[str] = ()) -> list[str]:
        """Names for a value, the best first."""
        statement, cls = self.owner[node], self.spec.cls
        count = len(statement.targets())
        return [
            *naming.author_names(node, cls, statement.position(node), count),
            naming.role_name(node),
            naming.tuple_name(node, cls),
            *flowing,
            naming.argument_name(node),
            *naming.own_names(node),
            naming.kind_name(node),
        ]

    def _last_uses(self, kept: list[Statement]) -> dict[torch.fx.Node, int]:
        """Named value -> position of the last statement that needs it."""
        last: dict[torch.fx.Node, int] = {}

        def visit(statement: Statement, position: int) -> None:
            read_here = [d.value for d in statement.dims() if d not in self.sizes.names]
            for node in (*statement.arrays(), *read_here):
                if node in self.inlined:
                    visit(self.owner[node], position)
                else:
                    last[node] = position

        for position, statement in enumerate(kept):
            visit(statement, position)
        return last

    def _bind(
        self,
        node: torch.fx.Node,
        position: int,
        last: dict[torch.fx.Node, int],
        first: list[str],
        avoid: set[str],
    ) -> str:
        """Choose the variable of `node`, which the statement at `position` assigns."""
        live = {
            name
            for other, name in self.names.items()
            if last.get(other, -1) > position and other is not node
        }
        live |= set(self.sizes.names.values()) | avoid
        name = next(c for c in naming.candidates(first) if c not in live)
        for other in [n for n, held in self.names.items() if held == name]:
            del self.names[other]
        self.names[node] = name
        return name

    def _flowing(self, statement: Statement) -> list[str]:
        """The variable that flows through a statement: its first array, if that is of the same kind."""
        found = self._first_array(statement)
        made = [node for node in statement.targets() if node is not None]
        if found is None or any(
            not naming.may_share(node, found, self.inputs) for node in made
        ):
            return []
        return [self.names[found]]

    def _first_array(self, statement: Statement) -> torch.fx.Node | None:
        for node in statement.arrays():
            if node in self.inlined:
                return self._first_array(self.owner[node])
            if node in self.names:
                return node
        return None

    # Statements

    def _emit(self, statements: list[ast.stmt]) -> None:
        self.function.statements += statements
        self.emitted += statements

    def _note(self, statement: Statement) -> None:
        """Note what the statements that were just emitted are made of."""
        nodes = list(self._inlined_below(statement))[::-1] + statement.outputs
        if isinstance(statement.item, Result):
            nodes = nodes or statement.values()
        elif isinstance(statement.item, Loop):
            nodes = [n for step in statement.item.steps for n in step.outputs]
        for top in self.emitted:
            for inner in ast.walk(top):
                if isinstance(inner, ast.stmt):
                    self.function.made.setdefault(inner, Made(nodes))
        if self.emitted and not statement.is_block:
            held = {self.names[n]: n for n in statement.outputs if n in self.names}
            self.function.made[self.emitted[-1]] = Made(nodes, held)
        self.emitted.clear()

    def _statement(
        self, statement: Statement, position: int, last: dict[torch.fx.Node, int]
    ) -> None:
        item = statement.item
        if isinstance(item, Result):
            self._return(item)
        elif isinstance(item, Loop):
            self._loop(statement, item, position, last)
        elif statement.optional:
            self._optional(statement, item, position, last)
        else:
            value = self._call(statement)
            targets = []
            flowing = self._flowing(statement)
            avoid: set[str] = set()
            for node in statement.targets():
                if node is None:
                    targets.append("_")
                    continue
                first = self._choices(node, flowing)
                targets.append(self._bind(node, position, last, first, avoid))
                avoid.add(targets[-1])
            self._emit([syntax.assign([syntax.name(t) for t in targets], value)])
        for node in statement.outputs:
            if node in self.names:
                self._emit(self.sizes.statement(node, self._name(node)))

    def _return(self, item: Result) -> None:
        written = [self._expression(value) for value in item.values]
        if self.results is not None:
            value = self.results(written)
        elif len(written) == 1:
            value = written[0]
        else:
            value = ast.Tuple(written)
        self._emit([ast.Return(value)])

    def _carried(
        self,
        statement: Statement,
        args: list[Any],
        carried: dict[int, int],
        position: int,
        last: dict[torch.fx.Node, int],
    ) -> list[str]:
        """Set up the variables that a loop rebinds; their names, by output."""
        sources = [
            args[next(i for i, out in carried.items() if out == k)]
            for k in range(len(statement.outputs))
        ]
        held = [
            self.names.get(s) if isinstance(s, torch.fx.Node) else None for s in sources
        ]
        values = [self._expression(source) for source in sources]
        others = [a for i, a in enumerate(args) if i not in carried]
        needed = {
            self.names[n] for a in others for n in values_in(a) if n in self.names
        }
        names: list[str] = []
        for node, source, own in zip(statement.outputs, sources, held, strict=True):
            dead = own is not None and last.get(source, -1) <= position
            first = (
                [own] if own and dead else self._choices(node, self._flowing(statement))
            )
            avoid = (
                needed | {*names} | ({h for h in held if h} - {own if dead else None})
            )
            names.append(self._bind(node, position, last, first, avoid))
        changed = [i for i, name in enumerate(names) if held[i] != name]
        if changed:
            targets = [syntax.name(names[i]) for i in changed]
            new = [values[i] for i in changed]
            self._emit(
                [syntax.assign(targets, new[0] if len(new) == 1 else ast.Tuple(new))]
            )
        return names

    def _loop(
        self,
        statement: Statement,
        item: Loop,
        position: int,
        last: dict[torch.fx.Node, int],
    ) -> None:
        others = {i: a for i, a in enumerate(item.args) if i not in item.carried}
        written = {i: self._expression(a) for i, a in others.items()}
        names = self._carried(statement, item.args, item.carried, position, last)
        args = [
            written[i] if i in written else syntax.name(names[item.carried[i]])
            for i in range(len(item.args))
        ]
        # The loops around this one call their own elements never "layer"
        taken = {*self.attributes.elements.values()} - {"layer"}
        taken.update(self.names.values())
        variable = next(c for c in ("layer", "block", "module") if c not in taken)
        self._emit([self._for(item, args, names, variable)])

    def _for(
        self, item: Loop, args: list[ast.expr], names: list[str], variable: str
    ) -> ast.stmt:
        lists = [self.attributes.access(base) for base in item.bases]
        over = functools.reduce(lambda a, b: ast.BinOp(a, ast.Add(), b), lists)
        if item.named:
            over = syntax.method(over, "values")
        if item.span is not None:
            bounds = ast.Slice(*(ast.Constant(i) if i else None for i in item.span))
            over = ast.Subscript(over, bounds)
        inner = item.steps[0]
        if isinstance(inner, Loop):
            stage = syntax.name("stage")
            layers = syntax.method(stage, "values") if inner.named else stage
            step = self._step("layer", args, names)
            body = ast.For(syntax.name("layer"), layers, [step], [], lineno=0)
            return ast.For(stage, over, [body], [], lineno=0)
        step = self._step(variable, args, names)
        return ast.For(syntax.name(variable), over, [step], [], lineno=0)

    def _step(self, variable: str, args: list[ast.expr], names: list[str]) -> ast.stmt:
        return syntax.assign(
            [syntax.name(n) for n in names], syntax.call(variable, args)
        )

    def _optional(
        self,
        statement: Statement,
        item: Any,
        position: int,
        last: dict[torch.fx.Node, int],
    ) -> None:
        """A part that may be absent: the value flows past it."""
        if isinstance(item, Op):
            self._optional_sum(statement, item, position, last)
            return
        names = self._carried(statement, item.args, {0: 0}, position, last)
        call = syntax.call(self.attributes.access(item.path), [syntax.name(names[0])])
        attribute = self.attributes.attribute(root(item))
        present: ast.expr = ast.Compare(
            ast.Constant(attribute), [ast.In()], [syntax.name("self")]
        )
        if self.attributes.root.children[root(item)].construct is None:
            # Empty where the child is absent
            present = syntax.name(f"self.{attribute}")
        assigned = syntax.assign([syntax.name(names[0])], call)
        self._emit([ast.If(present, [assigned], [])])

    def _optional_sum(
        self,
        statement: Statement,
        item: Op,
        position: int,
        last: dict[torch.fx.Node, int],
    ) -> None:
        """`if self.residual: x = x + y`."""
        flow = statement.flow
        other = self._expression(item.args[1 - flow])
        operands = [item.args[flow], item.args[1 - flow]]
        (name,) = self._carried(statement, operands, {0: 0}, position, last)
        args = [other, other]
        args[flow] = syntax.name(name)
        value = functions.expression(item.node.target, tuple(args), {}, lambda x: x)
        flag, _ = self.spec.optional[statement.mark]
        assigned = syntax.assign([syntax.name(name)], value)
        self._emit([ast.If(self._constant(Ref(flag)), [assigned], [])])

    # Expressions

    def _name(self, node: torch.fx.Node) -> ast.expr:
        return self.reads[node] if node in self.reads else syntax.name(self.names[node])

    def _call(self, statement: Statement) -> ast.expr:
        """The call that a statement makes."""
        item = statement.item
        if isinstance(item, Unpack):
            item = item.op
        if isinstance(item, Invoke):
            args = [self._expression(arg) for arg in item.args]
            return syntax.call(self.attributes.access(item.path), args)
        assert isinstance(item, Op)
        self._calls(item.node.target)
        given = {k: v for k, v in item.kwargs.items() if not self._is_no_mask(v)}
        args = item.args
        if item.node.target is mx.reshape and isinstance(args[1], tuple):
            args = (args[0], self._reshaped(item.args[0], args[1]))
        return functions.expression(item.node.target, args, given, self._expression)

    def _reshaped(self, x: Any, sizes: tuple[Any, ...]) -> tuple[Any, ...]:
        """The sizes of a reshape, the last without the number where it follows from the others."""
        known = [self.spec.value(s) if isinstance(s, Hole) else None for s in sizes]
        values = [size for size in known if type(size) is int]
        is_varying = any(isinstance(size, Ref) for size in known)
        if self.spec.arguments is None or type(known[-1]) is not int or is_varying:
            return sizes
        if len(values) == 1 and values[0] > 1 and len(sizes) > 1:
            return (*sizes[:-1], -1)
        last = Dim(x, x.meta["hint"].ndim - 1) if isinstance(x, torch.fx.Node) else None
        is_kept = last in self.sizes.names and x.meta["hint"].shape[-1] == values[-1]
        return (-1, last) if len(sizes) == 2 and values[0] == -1 and is_kept else sizes

    def _is_no_mask(self, value: Any) -> bool:
        return isinstance(value, Causal) and self.spec.value(value.flag) is False

    def _calls(self, target: Any) -> None:
        if target not in self.function.targets:
            self.function.targets.append(target)

    def _defining(self, node: torch.fx.Node) -> ast.expr:
        return self._call(self.owner[node])

    def _expression(self, value: Any) -> ast.expr:
        """The expression of an operand."""
        if isinstance(value, torch.fx.Node):
            if value in self.inlined:
                return self._defining(value)
            return self._name(value)
        if isinstance(value, Hole):
            return self._constant(self.spec.value(value))
        if isinstance(value, Causal):
            mask, flag = ast.Constant("causal"), self.spec.value(value.flag)
            if flag is True:
                return mask
            return ast.IfExp(self._constant(flag), mask, ast.Constant(None))
        if isinstance(value, Attr):
            return self.attributes.access(value.path)
        if isinstance(value, Dim):
            if value in self.sizes.names:
                return syntax.name(self.sizes.names[value])
            shape = ast.Attribute(self._name(value.value), "shape")
            return ast.Subscript(shape, ast.Constant(value.axis))
        if isinstance(value, SizeOp):
            return functions.expression(
                value.function, value.args, {}, self._expression
            )
        if isinstance(value, tuple):
            return ast.Tuple([self._expression(v) for v in value])
        if isinstance(value, list):
            return ast.List([self._expression(v) for v in value])
        if isinstance(value, slice):  # as an argument; between brackets it has colons
            parts = [
                value.start,
                value.stop,
                *([] if value.step is None else [value.step]),
            ]
            return syntax.call("slice", [self._expression(part) for part in parts])
        if functions.is_named(value):  # an activation that a helper applies
            self._calls(value)
            return syntax.name(functions.function_name(value))
        return syntax.literal(value)

    def _constant(self, value: Any) -> ast.expr:
        if isinstance(value, Ref):
            if value.name not in self.function.stored:
                self.function.stored.append(value.name)
            return syntax.name(f"self.{value.name}")
        if isinstance(value, Bound):
            kept = value.kept
            for name in kept.values():
                if name not in self.function.stored:
                    self.function.stored.append(name)
            return formulas.written(value.expression, 0, kept)
        return syntax.literal(value)


def _input_names(node: torch.fx.Node) -> list[str]:
    if node.op == "get_attr":
        return [str(node.target).rpartition(".")[2]]
    number = "n" if isinstance(node.meta.get("hint"), int) else ""
    kind = naming.kind_name(node)
    return [naming.argument_name(node), *naming.own_names(node), kind, number]


def depth(node: ast.AST) -> int:
    """How deep calls nest; a method chain counts once."""
    deepest = max((depth(child) for child in ast.iter_child_nodes(node)), default=0)
    chained = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    if isinstance(node, ast.Call):
        inner = node.func.value if chained else None  # type: ignore[attr-defined]
        return deepest if isinstance(inner, ast.Call) else deepest + 1
    return deepest
