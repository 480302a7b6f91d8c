"""Statements beside plain assignments: writes to a part of an array, new values of buffers and inputs.

y = assign(x, index, value)            ->     y = mx.array(x)     # only where x may not change
                                              y[index] = value
s = store(self.count, None, value)     ->     self.count = value
"""

from __future__ import annotations

import ast
from typing import Any

import torch.fx

from torch2mlx.emit import functions, syntax
from torch2mlx.emit.body import Body, depth
from torch2mlx.emit.statements import Result, Statement
from torch2mlx.emit.writes import assigned, is_fresh, keeps_nothing, names_in
from torch2mlx.outline.operands import Attr, Invoke, Loop, Op, leaves

Last = dict[torch.fx.Node, int]
ALL = ast.Constant(...)


class Blocks(Body):
    """Writes the `__call__` of one class, writes and stores included."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.places: dict[torch.fx.Node, Attr | torch.fx.Node] = {}
        self.stores: list[tuple[int, Attr | torch.fx.Node]] = []
        self.index = {id(s): i for i, s in enumerate(self.statements)}
        self.reading: dict[int, set[Attr | torch.fx.Node]] = {}
        for position, statement in enumerate(self.statements):
            if statement.is_store:
                target: Any = self._operands(statement)[0]
                place: Any = self.places.get(target, target)
                self.places[statement.outputs[0]] = place
                self.stores.append((position, place))

    @staticmethod
    def _operands(statement: Statement) -> tuple[Any, ...]:
        assert isinstance(statement.item, Op)
        return statement.item.args

    # What is read must be read before it changes

    def _may_inline(self, statement: Statement, user: Statement) -> bool:
        reads = self._reads(statement)
        start, end = self.index[id(statement)], self.index[id(user)]
        crossed = {place for i, place in self.stores if start < i < end}
        return super()._may_inline(statement, user) and not reads & crossed

    def _reads(self, statement: Statement) -> set[Attr | torch.fx.Node]:
        """The buffers and inputs, of those that change, that a statement needs."""
        known = self.reading.get(id(statement))
        if known is None:
            known = {p for _, p in self.stores if self._reads_itself(statement, p)}
            for node in statement.values():
                if node in self.inlined:
                    known |= self._reads(self.owner[node])
            self.reading[id(statement)] = known
        return known

    def _reads_itself(self, statement: Statement, place: Attr | torch.fx.Node) -> bool:
        if isinstance(place, Attr) and isinstance(statement.item, Invoke | Loop):
            item = statement.item
            called = [item.path] if isinstance(item, Invoke) else item.bases
            if any(place.path.startswith(f"{path}.") for path in called):
                return True
        return any(
            leaf == place or (leaf in self.places and self.places[leaf] == place)
            for leaf in leaves(statement.operands())
            if isinstance(leaf, Attr | torch.fx.Node)
        )

    def _last_uses(self, kept: list[Statement]) -> Last:
        last = super()._last_uses(kept)
        for node, place in self.places.items():
            if isinstance(place, torch.fx.Node):
                last[place] = max(last.get(place, -1), last.get(node, -1))
        return last

    # Statements

    def _statement(self, statement: Statement, position: int, last: Last) -> None:
        if statement.is_write:
            self._write_part(statement, position, last)
        elif statement.is_store:
            self._store(statement)
        elif not statement.outputs and isinstance(statement.item, Invoke):
            self._emit([ast.Expr(self._call(statement))])
        else:
            super()._statement(statement, position, last)
            return
        for node in statement.outputs:
            self._emit(self.sizes.statement(node, self._name(node)))

    def _return(self, item: Result) -> None:
        if item.values or self.results is not None:
            super()._return(item)
        elif not self.function.statements:
            self._emit([ast.Pass()])

    def _store(self, statement: Statement) -> None:
        """Write to a buffer or an input."""
        (node,), (_, part, value) = statement.outputs, self._operands(statement)
        place, written = self._name(node), self._expression(value)
        if part is not None:
            index = functions.index(part, self._expression)
            self._emit([assigned(place, index, written, place)])
        elif isinstance(self.places[node], Attr):
            self._emit([syntax.assign([place], written)])
        else:
            self._emit([syntax.assign([ast.Subscript(place, ALL)], written)])

    def _write_part(self, statement: Statement, position: int, last: Last) -> None:
        """Write to the variable of a fresh array that nothing needs any more, else to a copy."""
        (node,), (base, place, value) = statement.outputs, self._operands(statement)
        index = functions.index(place, self._expression)
        written, held = self._expression(value), self._expression(base)
        avoid = names_in(index, written)
        own = self.names.get(base) if base not in self.inlined else None
        if own and self._may_change(base, position, last):
            name = self._bind(node, position, last, [own], avoid - {own})
        else:
            first = self._choices(node, self._flowing(statement))
            kept = {own} if own and last.get(base, -1) <= position else set()
            name = self._bind(node, position, last, first, avoid - kept)
            is_new = base in self.inlined and is_fresh(base)
            start = held if is_new else syntax.call("mx.array", [held])
            self._emit([syntax.assign([syntax.name(name)], start)])
        self._emit([assigned(syntax.name(name), index, written, held)])

    def _may_change(self, base: torch.fx.Node, position: int, last: Last) -> bool:
        """Whether no one else sees it when the array in this variable changes."""
        if base not in self.owner or last.get(base, -1) > position:
            return False
        users = [s for s in self.statements if base in s.values() and not s.is_write]
        return is_fresh(base) and all(map(keeps_nothing, users))

    # Expressions

    def _name(self, node: torch.fx.Node) -> ast.expr:
        place = self.places.get(node)
        if isinstance(place, Attr):
            return self.attributes.access(place.path)
        return super()._name(node if place is None else place)

    def _extent(self, statement: Statement) -> tuple[int, int]:
        if not statement.is_write and not statement.is_store:
            return super()._extent(statement)
        (node,), (base, part, value) = statement.outputs, self._operands(statement)
        target = self._name(node)
        lines: list[ast.stmt] = []
        if statement.is_write:
            lines = [syntax.assign([target], self._expression(base))]
        if part is not None:
            target = ast.Subscript(target, functions.index(part, self._expression))
        lines.append(syntax.assign([target], self._expression(value)))
        length = max(len(syntax.text(line)) for line in lines)
        return length, max(map(depth, lines))
