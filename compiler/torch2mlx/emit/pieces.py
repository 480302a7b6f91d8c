"""Weights that are cut from others, or put together from several, as statements."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace

from torch2mlx.emit import syntax
from torch2mlx.emit.renames import shared
from torch2mlx.weights.plan import Step, WeightEntry

RESULT, WEIGHTS = syntax.name("sanitized"), syntax.name("weights")


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


def statements(entries: list[WeightEntry]) -> list[ast.stmt]:
    """One statement for each entry, in a loop where they are alike."""
    alike: dict[WeightEntry, list[str]] = {}
    for entry in entries:
        prefix = _prefix([entry.key, *entry.sources])
        inner = replace(
            entry,
            key=entry.key[len(prefix) :],
            sources=tuple(source[len(prefix) :] for source in entry.sources),
        )
        alike.setdefault(inner, []).append(prefix)
    groups: dict[tuple[str, ...], list[WeightEntry]] = {}
    for inner, prefixes in alike.items():
        groups.setdefault(tuple(prefixes), []).append(inner)
    result: list[ast.stmt] = []
    for prefixes, inners in groups.items():
        if len(prefixes) == 1:
            result += [_statement(inner, prefixes[0]) for inner in inners]
        else:
            result.append(_for(prefixes, inners))
    return result


def _prefix(keys: list[str]) -> str:
    first, *others = (key.split(".")[:-1] for key in keys)
    count = min((shared(first, other) for other in others), default=len(first))
    return "".join(f"{part}." for part in first[:count])


def _for(prefixes: tuple[str, ...], entries: list[WeightEntry]) -> ast.stmt:
    """A loop over a number in the prefixes, or over the prefixes themselves."""
    number = re.search(r"\d+", prefixes[0])
    if number:
        before, after = prefixes[0][: number.start()], prefixes[0][number.end() :]
        counted = tuple(f"{before}{i}{after}" for i in range(len(prefixes)))
        if prefixes == counted:
            counter = syntax.call("range", [ast.Constant(len(prefixes))])
            body = [_statement(entry, before, "i", after) for entry in entries]
            return ast.For(syntax.name("i"), counter, body, [], lineno=0)
    body = [_statement(entry, "", "prefix", "") for entry in entries]
    return ast.For(syntax.name("prefix"), syntax.literal(prefixes), body, [], lineno=0)


def _statement(
    entry: WeightEntry, before: str, variable: str = "", after: str = ""
) -> ast.stmt:
    """`sanitized[...] = ...`, each key with `before`, a variable if there is one, and `after` in front."""

    def key(name: str) -> ast.expr:
        if not variable:
            return ast.Constant(before + name)
        value = ast.FormattedValue(syntax.name(variable), -1)
        texts = [ast.Constant(text) for text in (before, after + name)]
        return ast.JoinedStr([texts[0], value, texts[1]])

    sources: list[ast.expr] = [ast.Subscript(WEIGHTS, key(s)) for s in entry.sources]
    value = stepped(_merged(entry, sources), entry.steps)
    return syntax.assign([ast.Subscript(RESULT, key(entry.key))], value)


def _merged(entry: WeightEntry, sources: list[ast.expr]) -> ast.expr:
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
            return syntax.call(name, [ast.List(sources)], **axis)
        case _:
            return sources[0]
