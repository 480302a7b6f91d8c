"""Branches and loops of the author's: `if`, `while` and `for` statements.

y = choose(p, a, b)          ->     if p.item():      r = loop(t, [n], [m], [], [])     ->     while t.item():
                                        y = a                                                     n = m
                                    else:
                                        y = b
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.fx

from torch2mlx.emit import naming, syntax
from torch2mlx.emit.blocks import Blocks, Last
from torch2mlx.emit.body import Function, depth
from torch2mlx.emit.statements import Result, Statement, Unpack
from torch2mlx.emit.writes import is_fresh, keeps_nothing, names_in
from torch2mlx.ir.regions import (
    Region,
    carried,
    choose,
    common,
    element,
    is_inside,
    loop,
    parts,
    uses,
)
from torch2mlx.outline.operands import Op

Node = torch.fx.Node
LISTS = ("outputs", "results")


@dataclass
class Rounds:
    """A loop whose body is being written.

    Attributes:
        statement: The loop.
        names: The variables that it rebinds.
        targets: The variables that its rounds take elements in.
        sequences: What the elements are taken from.
    """

    statement: Statement
    names: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    sequences: list[ast.expr] = field(default_factory=list)


class Regions(Blocks):
    """Writes the `__call__` of one class, branches and loops included."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        inner = [s.region for s in self.statements if not isinstance(s.item, Result)]
        self.base = self.region = common(inner)
        self.blocks: dict[Region, list[ast.stmt]] = {}
        self.rounds: dict[Node, Rounds] = {}
        self.loops: list[Rounds] = []
        self.before: dict[Node, Node] = {}  # what a variable is next -> what it is
        self.bound: set[str] = set()
        # Result of a branch -> what it is afterwards
        self.becomes: dict[Node, Node] = {}
        self.stacked: dict[Node, ast.expr] = {}
        for statement in self.statements:
            if statement.node is not None and statement.node.target is choose:
                self._note_results(statement)
            if statement.node is not None and statement.node.target is loop:
                rounds = Rounds(statement)
                self.loops.append(rounds)
                _, variables, following, elements, _ = self._join_operands(statement)
                self.rounds |= dict.fromkeys([*variables, *elements], rounds)
                pairs = zip(following, variables, strict=True)
                self.before |= {n: v for n, v in pairs if self._is_within(n, statement)}

    def _note_results(self, statement: Statement) -> None:
        for value in self._join_operands(statement)[1:]:
            results = value if isinstance(value, list | tuple) else [value]
            pairs = zip(results, statement.targets(), strict=False)
            self.becomes |= {
                result: target
                for result, target in pairs
                if target is not None and self._is_within(result, statement)
            }

    def _is_within(self, value: Any, join: Statement) -> bool:
        """Whether a value is made in a branch or loop, not before it."""
        owner = self.owner.get(value) if isinstance(value, Node) else None
        return owner is not None and owner.region != join.region

    @staticmethod
    def _join_operands(statement: Statement) -> tuple[Any, ...]:
        item = (
            statement.item.op if isinstance(statement.item, Unpack) else statement.item
        )
        assert isinstance(item, Op)
        return item.args

    # What may stand where

    def _may_inline(self, statement: Statement, user: Statement) -> bool:
        if not super()._may_inline(statement, user):
            return False
        (node,), where = statement.outputs, user.region
        if user.is_block and user.where is None:
            assert user.node is not None
            where = next((r for source, r in uses(user.node) if source is node), where)
        between = where[len(statement.region) :]
        return all(isinstance(part, int) for _, part in between)

    def _needs(self, statement: Statement) -> Iterator[Node]:
        """The variables that a statement reads."""
        sizes = [d.value for d in statement.dims() if d not in self.sizes.names]
        for node in (*statement.arrays(), *sizes):
            if node in self.inlined:
                yield from self._needs(self.owner[node])
            else:
                yield node

    def _last_uses(self, kept: list[Statement]) -> Last:
        """A loop needs what comes from outside until it ends, since there may be another round."""
        last = super()._last_uses(kept)
        position = {id(statement): i for i, statement in enumerate(kept)}
        for rounds in self.loops:
            assert rounds.statement.node is not None
            inner, test, _ = parts(rounds.statement.node)
            end = position[id(rounds.statement)]
            inside = [s for s in kept if is_inside(s.region, inner)]
            tests = [position[id(s)] for s in inside if is_inside(s.region, test)]
            starts = set(map(id, self._starts(rounds.statement)))
            again = [s for s in inside if id(s) not in starts]
            for node in (n for s in again for n in self._needs(s)):
                owner = self.owner.get(node)
                if owner is None or not is_inside(owner.region, inner):
                    last[node] = max(last.get(node, -1), end)
            for variable in self._join_operands(rounds.statement)[1]:
                last[variable] = max([last.get(variable, -1), *tests])
        return last

    def _starts(self, statement: Statement) -> list[Statement]:
        """What sets the variables of a loop, before its first round."""
        return [self.owner[node] for node in self._join_operands(statement)[1]]

    def _may_change(self, base: Node, position: int, last: Last) -> bool:
        owner = self.owner.get(base)
        if owner is None or owner.node is None or owner.node.target is not choose:
            return super()._may_change(base, position, last)
        made = [n for n, target in self.becomes.items() if target is base]
        alone = all(is_fresh(n) and len(n.users) == 1 for n in made)
        users = [s for s in self.statements if base in s.values() and not s.is_write]
        ends = last.get(base, -1) <= position and all(map(keeps_nothing, users))
        return ends and alone and len(made) == 2

    def _extent(self, statement: Statement) -> tuple[int, int]:
        if not statement.is_block:
            return super()._extent(statement)
        found = [self._expression(value) for value in statement.values()]
        length = max((len(syntax.text(e)) for e in found), default=0)
        return length + 12, max(map(depth, found), default=0)

    # Names

    def _choices(self, node: Node, flowing: Any = ()) -> list[str]:
        if node in self.before and self.before[node] in self.names:
            return [self.names[self.before[node]]]
        if node in self.becomes:
            return self._choices(self.becomes[node], flowing)
        return super()._choices(node, flowing)

    def _name(self, node: Node) -> ast.expr:
        return self.stacked[node] if node in self.stacked else super()._name(node)

    def _bind(
        self, node: Node, position: int, last: Last, first: list[str], avoid: set[str]
    ) -> str:
        name = super()._bind(node, position, last, first, avoid)
        self.bound.add(name)
        return name

    def _variable_names(self, node: Node, rounds: Rounds) -> list[str]:
        """The author's names of what a loop gives, else of what it begins with."""
        variables = self._join_operands(rounds.statement)[1]
        count = len(rounds.statement.targets())
        own = [
            name
            for number in (len(variables), count)
            for name in naming.author_names(
                node, self.spec.cls, variables.index(node), number
            )
        ]
        value = node.meta["val"]
        is_count = value.ndim == 0 and not value.dtype.is_floating_point
        return [*own, *(["i"] if is_count else [])]

    def _element_names(self, node: Node, value: ast.expr) -> list[str]:
        """Names for the variable that takes the elements of the sequence `value`."""
        del node
        return [*([f"{value.id}_i"] if isinstance(value, ast.Name) else []), "row"]

    # Statements

    def write(self) -> Function:
        """The function."""
        function = super().write()
        assert not self.blocks
        return function

    def _emit(self, statements: list[ast.stmt]) -> None:
        if self.region == self.base:
            super()._emit(statements)
        else:
            self.blocks.setdefault(self.region, []).extend(statements)
            self.emitted += statements

    def _statement(self, statement: Statement, position: int, last: Last) -> None:
        is_result = isinstance(statement.item, Result)
        self.region = self.base if is_result else statement.region
        if not statement.is_block:
            super()._statement(statement, position, last)
            return
        assert statement.node is not None
        write = {
            carried: self._start,
            element: self._take,
            choose: self._branch,
            loop: self._repeat,
        }
        write[statement.node.target](statement, position, last)  # type: ignore[index]
        for node in statement.outputs:
            self._emit(self.sizes.statement(node, self._name(node)))

    def _start(self, statement: Statement, position: int, last: Last) -> None:
        """The variable of a loop, as it begins."""
        self.region = statement.region[:-1]
        (node,), (initial,) = statement.outputs, self._join_operands(statement)
        value, rounds = self._expression(initial), self.rounds[node]
        own = self.names.get(initial) if isinstance(initial, Node) else None
        ends = own is not None and last.get(initial, -1) <= position
        first = [own] if own and ends else self._variable_names(node, rounds)
        name = self._bind(node, position, last, first, {*rounds.names})
        rounds.names.append(name)
        self._emit(assignments([(name, value)]))

    def _take(self, statement: Statement, position: int, last: Last) -> None:
        """The variable that takes the elements of a sequence."""
        (node,), (sequence,) = statement.outputs, self._join_operands(statement)
        value, rounds = self._expression(sequence), self.rounds[node]
        first = self._element_names(node, value)
        taken = {*rounds.names, *rounds.targets}
        rounds.targets.append(self._bind(node, position, last, first, taken))
        rounds.sequences.append(value)
        assert rounds.statement.node is not None
        self.region = parts(rounds.statement.node)[2]

    def _branch(self, statement: Statement, position: int, last: Last) -> None:
        condition, *values = self._join_operands(statement)
        test = self._test(condition)
        branches = [
            [
                self._expression(v)
                for v in (value if isinstance(value, list | tuple) else [value])
            ]
            for value in values
        ]
        places: list[int] = []
        names: list[str] = []
        for place, node in enumerate(statement.targets()):
            if node is not None:
                first = self._choices(node)
                names.append(self._bind(node, position, last, first, {*names}))
                places.append(place)
        assert statement.node is not None
        blocks = []
        for region, results in zip(parts(statement.node), branches, strict=True):
            pairs = [(n, results[p]) for n, p in zip(names, places, strict=True)]
            blocks.append([*self.blocks.pop(region, []), *assignments(pairs)])
        self._emit([_if(test, *blocks)])

    def _test(self, condition: Any) -> ast.expr:
        """A condition as Python takes it."""
        test = self._expression(condition)
        is_array = isinstance(condition, Node) and hasattr(
            condition.meta["hint"], "item"
        )
        return syntax.method(test, "item") if is_array else test

    def _repeat(self, statement: Statement, position: int, last: Last) -> None:
        rounds = next(r for r in self.loops if r.statement is statement)
        condition, variables, following, _, collected = self._join_operands(statement)
        assert statement.node is not None
        _, test, body = parts(statement.node)
        pairs = zip(rounds.names, map(self._expression, following), strict=True)
        lists = self._lists(len(collected))
        results = [
            ast.Expr(syntax.method(syntax.name(name), "append", [self._expression(v)]))
            for name, v in zip(lists, collected, strict=True)
        ]
        block = [*self.blocks.pop(body, []), *results, *assignments(list(pairs))]
        self._emit([syntax.assign([syntax.name(n)], ast.List([])) for n in lists])
        if condition is None:
            self._emit([_for(rounds, block)])
        else:
            self._emit(
                [_while(self._test(condition), self.blocks.pop(test, []), block)]
            )
        for place, node in enumerate(statement.targets()):
            if node is not None and place < len(variables):
                self._rename(node, rounds.names[place])
        for place, node in enumerate(statement.targets()):
            if node is not None and place >= len(variables):
                self._stack(node, lists[place - len(variables)], position, last)

    def _rename(self, node: Node, name: str) -> None:
        for other in [n for n, held in self.names.items() if held == name]:
            del self.names[other]
        self.names[node] = name

    def _lists(self, count: int, wanted: Sequence[str] = LISTS) -> list[str]:
        """Names for lists that nothing else in the function has."""
        taken = self.bound | {*self.names.values(), *self.sizes.names.values()}
        names: list[str] = []
        for _ in range(count):
            free = naming.candidates(wanted)
            names.append(next(n for n in free if n not in taken | {*names}))
        self.bound.update(names)
        return names

    def _stack(self, node: Node, name: str, position: int, last: Last) -> None:
        value = syntax.call("mx.stack", [syntax.name(name)])
        users = [s for s in self.statements for n in s.values() if n is node]
        if len(users) == 1 and users[0].region == self.region and not users[0].is_block:
            self.stacked[node] = value
            return
        own = self._bind(node, position, last, self._choices(node), set())
        self._emit([syntax.assign([syntax.name(own)], value)])


def assignments(pairs: list[tuple[str, ast.expr]]) -> list[ast.stmt]:
    """Assign all values to names at once: one by one, but for those that swap."""
    rest = [
        (name, value)
        for name, value in pairs
        if not (isinstance(value, ast.Name) and value.id == name)
    ]
    statements: list[ast.stmt] = []
    while rest:
        free = [
            (name, value)
            for name, value in rest
            if not any(name in names_in(v) for n, v in rest if n != name)
        ]
        now = free[:1] or rest
        value = now[0][1] if free else ast.Tuple([value for _, value in now])
        statements.append(syntax.assign([syntax.name(n) for n, _ in now], value))
        rest = [pair for pair in rest if pair not in now]
    return statements


def _if(test: ast.expr, first: list[ast.stmt], second: list[ast.stmt]) -> ast.stmt:
    if not first:
        return ast.If(ast.UnaryOp(ast.Not(), test), second or [ast.Pass()], [])
    return ast.If(test, first, second)


def _for(rounds: Rounds, block: list[ast.stmt]) -> ast.stmt:
    targets = [syntax.name(name) for name in rounds.targets]
    if len(targets) == 1:
        return ast.For(targets[0], rounds.sequences[0], block, [], lineno=0)
    over = syntax.call("zip", rounds.sequences, strict=ast.Constant(True))
    return ast.For(ast.Tuple(targets), over, block, [], lineno=0)


def _while(test: ast.expr, before: list[ast.stmt], block: list[ast.stmt]) -> ast.stmt:
    if not before:
        return ast.While(test, block or [ast.Pass()], [])
    stop = ast.If(ast.UnaryOp(ast.Not(), test), [ast.Break()], [])
    return ast.While(ast.Constant(True), [*before, stop, *block], [])
