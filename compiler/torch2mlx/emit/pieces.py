"""Weights that are cut from others, or put together from several, as statements."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from torch2mlx.emit import syntax
from torch2mlx.emit.renames import shared
from torch2mlx.weights.plan import Step, WeightEntry

RESULT, WEIGHTS = syntax.name("sanitized"), syntax.name("weights")
# In names: the variable of a loop, the number of an array within a list, and what many begin with
PLACE, NUMBER, START = "\0", "\1", "\2"
Part = TypeVar("Part", str, int)
LISTED = 2  # arrays of a list that are written one by one


def is_piece(entry: WeightEntry) -> bool:
    """Whether it is more than one renamed, transposed or added array."""
    cut = any(step[0] == "slice" for step in entry.steps)
    added = entry.merge == "sum" and not entry.steps
    return cut or (entry.merge is not None and not added)


def stepped(value: ast.expr, steps: Iterable[Step]) -> ast.expr:
    """The steps of a plan, done to `value`."""
    for step in steps:
        match step:
            case ("transpose", (1, 0)):
                value = ast.Attribute(value, "T")
            case ("transpose", perm):
                value = syntax.method(value, "transpose", map(syntax.literal, perm))
            case ("reshape", shape):
                value = syntax.method(value, "reshape", map(syntax.literal, shape))
            case (_, axis, start, stop):
                value = _sliced(value, axis, start, stop)
            case _:
                raise AssertionError(step)
    return value


def _sliced(value: ast.expr, axis: int, start: int, stop: int) -> ast.expr:
    cut = syntax.literal(slice(start or None, stop))
    if not axis:
        return ast.Subscript(value, cut)
    return ast.Subscript(value, ast.Tuple([*[ast.Slice()] * axis, cut]))


@dataclass(frozen=True)
class _Loop:
    """Entries that are alike but for a part of their names.

    Attributes:
        first: The place of the first of them.
        variable: What the part is called; "" for entries that are alone.
        values: Its values.
        entries: The entries, with `PLACE` for the part.
    """

    first: int
    variable: str
    values: ast.expr
    entries: list[WeightEntry]

    def statement(self) -> ast.stmt:
        """The loop as code."""
        body = _body(self.entries, self.variable)
        return ast.For(syntax.name(self.variable), self.values, body, [], lineno=0)


def statements(entries: list[WeightEntry]) -> list[ast.stmt]:
    """One statement for each entry, in a loop where they are alike."""
    numbered = dict(enumerate(entries))
    loops = _grouped(numbered, _without_prefix, _prefix_loop)
    loops += _grouped(numbered, _without_number, _number_loop)
    nothing = ast.Constant(None)
    loops += [_Loop(i, "", nothing, [entry]) for i, entry in numbered.items()]
    loops.sort(key=lambda loop: loop.first)
    result: list[ast.stmt] = []
    for is_loop, group in groupby(loops, lambda loop: bool(loop.variable)):
        if is_loop:
            result += [loop.statement() for loop in group]
        else:
            result += _body([entry for loop in group for entry in loop.entries], "")
    return result


def _grouped(
    entries: dict[int, WeightEntry],
    without: Callable[[WeightEntry], tuple[WeightEntry, Part] | None],
    make: Callable[[int, tuple[Part, ...], list[WeightEntry]], _Loop | None],
) -> list[_Loop]:
    """Loops over the parts in which entries differ; these entries are taken out of `entries`."""
    alike: dict[WeightEntry, dict[Part, int]] = {}
    for i, entry in entries.items():
        found = without(entry)
        if found is not None:
            alike.setdefault(found[0], {})[found[1]] = i
    groups: dict[tuple[Part, ...], list[WeightEntry]] = {}
    for inner, parts in alike.items():
        groups.setdefault(tuple(parts), []).append(inner)
    loops: list[_Loop] = []
    for parts, inners in groups.items():
        places = [i for inner in inners for i in alike[inner].values()]
        loop = make(min(places), parts, inners) if len(parts) > 1 else None
        if loop is not None:
            loops.append(loop)
            for i in places:
                del entries[i]
    return loops


def _without_prefix(entry: WeightEntry) -> tuple[WeightEntry, str]:
    """An entry without what its names have in common at the beginning, and that."""
    first, *others = (name.split(".")[:-1] for name in (entry.key, *entry.sources))
    count = min((shared(first, other) for other in others), default=len(first))
    prefix = "".join(f"{part}." for part in first[:count])
    return _renamed(entry, lambda name: PLACE + name[len(prefix) :]), prefix


def _prefix_loop(
    first: int, prefixes: tuple[str, ...], entries: list[WeightEntry]
) -> _Loop:
    """A loop over a number in the prefixes, or over the prefixes themselves."""
    number = re.search(r"\d+", prefixes[0])
    if number:
        before, after = prefixes[0][: number.start()], prefixes[0][number.end() :]
        start = int(number[0])
        numbers = range(start, start + len(prefixes))
        if prefixes == tuple(f"{before}{i}{after}" for i in numbers):
            prefix = before + PLACE + after
            inner = [
                _renamed(entry, lambda name: prefix + name[1:]) for entry in entries
            ]
            return _Loop(first, "i", _range(numbers), inner)
    return _Loop(first, "prefix", syntax.literal(prefixes), entries)


def _without_number(entry: WeightEntry) -> tuple[WeightEntry, int] | None:
    """An entry without the first number of its names, and that; None where they have not the same."""
    names = [name.split(".") for name in (entry.key, *entry.sources)]
    numbers = {next((p for p in name if p.isdigit()), "") for name in names}
    number, *others = numbers
    if others or str(int(number or -1)) != number:
        return None

    def without(name: str) -> str:
        parts = name.split(".")
        parts[parts.index(number)] = PLACE
        return ".".join(parts)

    return _renamed(entry, without), int(number)


def _number_loop(
    first: int, numbers: tuple[int, ...], entries: list[WeightEntry]
) -> _Loop | None:
    ordered = sorted(numbers)
    found = range(ordered[0], ordered[-1] + 1)
    return _Loop(first, "i", _range(found), entries) if ordered == [*found] else None


def _renamed(entry: WeightEntry, rename: Callable[[str], str]) -> WeightEntry:
    sources = tuple(map(rename, entry.sources))
    return replace(entry, key=rename(entry.key), sources=sources)


def _range(numbers: range) -> ast.expr:
    limits = [numbers.start, numbers.stop] if numbers.start else [numbers.stop]
    return syntax.call("range", [ast.Constant(limit) for limit in limits])


def _body(entries: list[WeightEntry], variable: str) -> list[ast.stmt]:
    """`sanitized[...] = ...` for each entry, with a name for what many keys begin with."""
    names = {PLACE: variable, NUMBER: "j"}
    listed = [_listed(entry) for entry in entries]
    begins = [template.partition(NUMBER)[0] for found in listed for template in found]
    result: list[ast.stmt] = []
    known = ""
    for entry, templates in zip(entries, listed, strict=True):
        begin = templates[0].partition(NUMBER)[0] if templates else ""
        alike = all(template.startswith(begin + NUMBER) for template in templates)
        if begin and alike and begins.count(begin) > 1:
            if begin != known:
                known, names[START] = begin, _title(begin)
                text = _text(begin.removesuffix("."), names)
                result.append(syntax.assign([syntax.name(names[START])], text))
            templates = [f"{START}.{t.removeprefix(begin)}" for t in templates]
        value = stepped(_merged(entry, templates, names), entry.steps)
        place = ast.Subscript(RESULT, _text(entry.key, names))
        result.append(syntax.assign([place], value))
    return result


def _title(begin: str) -> str:
    """A variable for what keys begin with: its last component."""
    last = begin.removesuffix(".").rpartition(".")[2]
    taken = {"self", "mx", "nn", "key", "value", "names", "weights", "sanitized"}
    if not last.isidentifier() or keyword.iskeyword(last) or last in taken:
        return "start"
    return last if len(last) > 1 else "start"


def _text(template: str, names: dict[str, str]) -> ast.expr:
    """A name with its variables."""
    parts = re.split(f"([{PLACE}{NUMBER}{START}])", template)
    if len(parts) == 1:
        return ast.Constant(template)
    values: list[ast.expr] = [
        (
            ast.FormattedValue(syntax.name(names[part]), -1)
            if i % 2
            else ast.Constant(part)
        )
        for i, part in enumerate(parts)
        if part
    ]
    return ast.JoinedStr(values)


def _listed(entry: WeightEntry) -> list[str]:
    """The names of one array of a list, with `NUMBER` for its place; [] where they are not numbered."""
    size = entry.group
    count = len(entry.sources) // size
    if entry.merge not in ("concat", "stack") or count <= LISTED:
        return []
    found: list[str] = []
    for offset in range(size):
        template = _numbered(entry.sources[offset::size])
        if template is None:
            return []
        found.append(template)
    return found


def _numbered(names: tuple[str, ...]) -> str | None:
    """What names are that count from 0 at one place."""
    parts = names[0].split(".")
    for i in (i for i, part in enumerate(parts) if part == "0"):
        template = ".".join([*parts[:i], NUMBER, *parts[i + 1 :]])
        if all(
            template.replace(NUMBER, str(n)) == name for n, name in enumerate(names)
        ):
            return template
    return None


def _merged(
    entry: WeightEntry, templates: list[str], names: dict[str, str]
) -> ast.expr:
    sources = [_weight(source, names) for source in entry.sources]
    match entry.merge:
        case "sum":
            total = sources[0]
            for source in sources[1:]:
                total = ast.BinOp(total, ast.Add(), source)
            return total
        case "gru_bias":
            gates = syntax.literal(slice(None, entry.shapes[0][0] // 3 * 2))
            place = ast.Subscript(ast.Attribute(sources[0], "at"), gates)
            return syntax.method(place, "add", [ast.Subscript(sources[1], gates)])
        case "concat" | "stack":
            name = "mx.concatenate" if entry.merge == "concat" else "mx.stack"
            axis = {"axis": ast.Constant(entry.axis)} if entry.axis else {}
            return syntax.call(name, [_list(entry, sources, templates, names)], **axis)
        case _:
            return sources[0]


def _weight(name: str, names: dict[str, str]) -> ast.expr:
    return ast.Subscript(WEIGHTS, _text(name, names))


def _list(
    entry: WeightEntry,
    sources: list[ast.expr],
    templates: list[str],
    names: dict[str, str],
) -> ast.expr:
    """The arrays that are stacked or concatenated, each of them that of a group where there are groups."""
    size = entry.group
    if not templates:
        groups = [sources[i : i + size] for i in range(0, len(sources), size)]
        return ast.List([_group(group) for group in groups])
    numbers = _range(range(len(sources) // size))
    loop = ast.comprehension(syntax.name(names[NUMBER]), numbers, [], 0)
    return ast.ListComp(_group([_weight(t, names) for t in templates]), [loop])


def _group(arrays: list[ast.expr]) -> ast.expr:
    if len(arrays) == 1:
        return arrays[0]
    return syntax.call("mx.concatenate", [ast.List(arrays)])
