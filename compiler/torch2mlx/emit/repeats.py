"""Loops over lists of modules whose bodies are more than one call.

for attn, mlp in zip(self.attns, self.mlps):
    x = x + attn(x)
    x = x + mlp(x)
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from typing import Any

import torch.fx

from torch2mlx.emit import naming, rounds, syntax
from torch2mlx.emit.blocks import Last
from torch2mlx.emit.regions import Regions, Rounds, assignments
from torch2mlx.emit.statements import Result, Statement
from torch2mlx.ir.names import TAKEN
from torch2mlx.ir.regions import parts
from torch2mlx.outline.operands import Base, Loop, Op, Repeat, by_round

Node = torch.fx.Node
OURS = frozenset({"layer", "stage"})  # which no other variable is called


class Repeats(Regions):
    """Writes the `__call__` of one class, its loops over lists of modules included."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        items = [i for i in self.spec.template.items if isinstance(i, Repeat)]
        self.repeats = {item.node: item for item in items}
        self.varying = {v.node: item for item in items for v in item.varying}
        self.counters: dict[Node, str] = {}
        self.sizes_of_lists: dict[str, int] = {}
        self.reserved: set[str] = set()
        self._name_elements(set(self.fixed_names))

    # Names

    def _name_elements(self, taken: set[str]) -> None:
        """Name the elements that the loops take, and their counters."""
        self.reserved.clear()
        for node, repeat in self.repeats.items():
            own = inner = _inner_names(repeat)
            for base in repeat.bases:
                wanted = [_singular(base.path)] if len(repeat.bases) > 1 else []
                others = itertools.chain(
                    wanted,
                    ["stage" if inner else "layer", "block", "module"],
                    (f"module{i}" for i in itertools.count(2)),
                )
                name = next(n for n in others if n not in taken | own)
                own = own | {name}
                self.attributes.elements[base.mark] = name
            counters = itertools.chain("ijk", (f"i{n}" for n in itertools.count(2)))
            self.counters[node] = next(n for n in counters if n not in taken)
            self.reserved |= {*own, self.counters[node]} - OURS

    def _name_inputs(self) -> None:
        super()._name_inputs()
        self._name_elements(set(self.names.values()))

    def _bind(
        self, node: Node, position: int, last: Last, first: list[str], avoid: set[str]
    ) -> str:
        return super()._bind(node, position, last, first, avoid | self.reserved)

    def _variable_names(self, node: Node, rounds: Rounds) -> list[str]:
        repeat = self.repeats.get(_node_of(rounds.statement))
        if repeat is None:
            return super()._variable_names(node, rounds)
        (following,) = [v.following for v in repeat.variables if v.node is node]
        return self._choices(following)

    def _element_names(self, node: Node, value: ast.expr) -> list[str]:
        if node in self.varying:
            return [*self._choices(node), "value"]
        return super()._element_names(node, value)

    # Statements

    def _repeat(self, statement: Statement, position: int, last: Last) -> None:
        node = _node_of(statement)
        repeat = self.repeats.get(node)
        if repeat is None:
            super()._repeat(statement, position, last)
            return
        taken = next(r for r in self.loops if r.statement is statement)
        lists = [self._list_name(c.value) for c in repeat.collected]
        _, _, body = parts(node)
        following = [self._expression(v.following) for v in repeat.variables]
        pairs = list(zip(taken.names, following, strict=True))
        variables = [v.node for v in repeat.variables]
        begins, ends = [], []
        for name, c in zip(lists, repeat.collected, strict=True):
            if c.value in variables:
                held = syntax.name(taken.names[variables.index(c.value)])
                begins.append(self._kept(repeat, list(c.kept), name, held))
            else:
                value = self._expression(c.value)
                ends.append(self._kept(repeat, list(c.kept), name, value))
        block = [*begins, *self.blocks.pop(body, []), *ends, *assignments(pairs)]
        self._emit([syntax.assign([syntax.name(n)], ast.List([])) for n in lists])
        self._emit([self._for_each(repeat, taken, block)])
        for name, variable in zip(taken.names, repeat.variables, strict=True):
            if variable.result is not None:
                self._rename(variable.result, name)
        for name, collected in zip(lists, repeat.collected, strict=True):
            self.sizes_of_lists[name] = len(collected.kept)
            for place, value in enumerate(collected.kept.values()):
                index = ast.Constant(place)
                self.stacked[value] = ast.Subscript(syntax.name(name), index)

    def _list_name(self, value: Node) -> str:
        held = self.names.get(value) or next(naming.candidates(self._choices(value)))
        plural = f"all_{held}" if held.endswith("s") else f"{held}s"
        (name,) = self._lists(1, [plural, "outputs", "results"])
        self.reserved.add(name)
        return name

    def _kept(
        self, repeat: Repeat, places: list[int], name: str, value: ast.expr
    ) -> ast.stmt:
        """`name.append(value)`, in those rounds of which it is needed."""
        append = ast.Expr(syntax.method(syntax.name(name), "append", [value]))
        if len(places) == len(repeat.rounds):
            return append
        counter = syntax.name(self.counters[repeat.node])
        return ast.If(
            rounds.condition(counter, places, len(repeat.rounds)), [append], []
        )

    def _for_each(
        self, repeat: Repeat, taken: Rounds, block: list[ast.stmt]
    ) -> ast.stmt:
        over = [self._sequence(base) for base in repeat.bases] + [
            rounds.sequence(s, self.sizes_of_lists) for s in taken.sequences
        ]
        names = [self.attributes.elements[base.mark] for base in repeat.bases]
        targets = [syntax.name(name) for name in [*names, *taken.targets]]
        counter = self.counters[repeat.node]
        counts = any(
            isinstance(part, ast.Name) and part.id == counter
            for line in block
            for part in ast.walk(line)
        )
        target: ast.expr = targets[0] if len(targets) == 1 else ast.Tuple(targets)
        if not over:
            target = syntax.name(counter if counts else "_")
            source = syntax.call("range", [ast.Constant(len(repeat.rounds))])
        else:
            source = over[0] if len(over) == 1 else _zip(over)
            if counts:
                source = syntax.call("enumerate", [source])
                target = ast.Tuple([syntax.name(counter), target])
        return ast.For(target, source, block or [ast.Pass()], [], lineno=0)

    def _sequence(self, base: Base) -> ast.expr:
        """The elements of a list or dict that the rounds take."""
        place, names = self.attributes.place(base.path), base.names
        whole = self.attributes.access(base.path)
        if not names[0].isdigit():
            if list(place.children) == names:
                return syntax.method(whole, "values")
            return ast.List([ast.Subscript(whole, ast.Constant(n)) for n in names])
        size = 1 + max(int(n) for n in place.children if n.isdigit())
        return rounds.part(whole, [int(name) for name in names], size)

    def _statement(self, statement: Statement, position: int, last: Last) -> None:
        item = statement.item
        if isinstance(item, Op) and item.node.target is by_round:
            value = self._call(statement)
            # What is the number of the round needs no variable of its own
            if isinstance(value, ast.Name) and value.id in self.counters.values():
                self.names[item.node] = value.id
                return
        super()._statement(statement, position, last)

    # Expressions

    def _call(self, statement: Statement) -> ast.expr:
        item = statement.item
        if not isinstance(item, Op) or item.node.target is not by_round:
            return super()._call(statement)
        repeat = self.varying[item.node]
        values = [self._expression(value) for value in item.args[0]]
        return rounds.choice(syntax.name(self.counters[repeat.node]), values)

    def _calls(self, target: Any) -> None:
        if target is not by_round:
            super()._calls(target)

    def _expression(self, value: Any) -> ast.expr:
        written = super()._expression(value)
        if isinstance(written, ast.List | ast.Tuple):
            written.elts = self._spread(value, written.elts)
            return _plain(written)
        return written

    def _spread(self, values: Any, written: list[ast.expr]) -> list[ast.expr]:
        """`*xs` for all elements of a list of ours in a row."""
        result: list[ast.expr] = []
        i = 0
        while i < len(values):
            found = self._collected(values, i)
            if found:
                result.append(ast.Starred(self.stacked[values[i]].value))  # type: ignore[attr-defined]
            else:
                result.append(written[i])
            i += found or 1
        return result

    def _collected(self, values: Any, i: int) -> int:
        """How many values from the i-th on are all that some loop has collected."""
        if not isinstance(values[i], Node) or values[i] not in self.stacked:
            return 0
        for repeat in self.repeats.values():
            for collected in repeat.collected:
                kept = list(collected.kept.values())
                if list(values[i : i + len(kept)]) == kept:
                    return len(kept)
        return 0

    def _return(self, item: Result) -> None:
        results = self.results
        if results is None or not self.stacked:
            super()._return(item)
            return

        def spread(written: list[ast.expr]) -> ast.expr:
            value = results(written)
            if isinstance(value, ast.Tuple | ast.List):
                if value.elts == written:
                    value.elts = self._spread(item.values, written)
                return _plain(value)
            return value

        self.results = spread
        super()._return(item)


def _zip(sequences: list[ast.expr]) -> ast.expr:
    return syntax.call("zip", sequences, strict=ast.Constant(True))


def _plain(items: ast.List | ast.Tuple) -> ast.expr:
    """`xs` for `[*xs]`."""
    only = items.elts[0] if len(items.elts) == 1 else None
    is_list = isinstance(items, ast.List) and isinstance(only, ast.Starred)
    return only.value if is_list else items  # type: ignore[union-attr]


def _node_of(statement: Statement) -> Node:
    assert statement.node is not None
    return statement.node


def _inner_names(repeat: Repeat) -> set[str]:
    """The variables of the loops inside a loop."""
    found: set[str] = set()
    for item in repeat.body:
        if isinstance(item, Loop):
            found |= (
                {"layer", "stage"} if isinstance(item.steps[0], Loop) else {"layer"}
            )
        elif isinstance(item, Repeat):
            found |= _inner_names(item)
    return found


def _singular(path: str) -> str:
    """A name for an element of a list: `branch` for `branches`."""
    words = [part for part in path.split(".") if not part.isdigit()]
    name = re.sub(r"\W", "_", words[-1]) if words else "layer"
    for plural, single in (("(ch|sh|x|ss)es", r"\1"), ("ies", "y"), ("(?<=[^s])s", "")):
        if re.search(f"{plural}$", name):
            name = re.sub(f"{plural}$", single, name)
            break
    clear = name.isidentifier() and not keyword.iskeyword(name)
    return name if clear and name not in TAKEN - OURS else "layer"
