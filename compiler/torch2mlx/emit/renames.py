"""Old names and new names of weights, as code that makes one of the other."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch2mlx.emit import syntax
from torch2mlx.emit.replacements import replaced, replacements

KEY, NAMES = syntax.name("key"), syntax.name("names")
Rule = tuple[str, str]
MOST = 12
CHAIN = 3  # replacements in one expression


@dataclass(frozen=True)
class Renaming:
    """How to rename.

    Attributes:
        name: An expression with `key` in it: the new name.
        table: What `names` is in that expression or statement, if it occurs there.
        is_short: Whether the expression reads well within another one.
        before: A statement that renames `key`, if the expression alone does not do it.
    """

    name: ast.expr
    table: ast.expr | None = None
    is_short: bool = False
    before: ast.stmt | None = None


def renaming(names: Mapping[str, str]) -> Renaming | None:
    """The new name `names[key]` of each `key`, None where no name changes."""
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return None
    prefix = _common_prefix(names)
    if prefix is not None:
        joined = [ast.Constant(prefix), ast.FormattedValue(KEY, -1)]
        return Renaming(ast.JoinedStr(joined), is_short=True)
    rules = _rules(names, changed) or replacements(names, MOST)
    if rules is not None and len(rules) > CHAIN:
        items = syntax.method(NAMES, "items")
        pair = [syntax.name("old"), syntax.name("new")]
        rename = syntax.assign([KEY], syntax.method(KEY, "replace", pair))
        loop = ast.For(ast.Tuple(pair), items, [rename], [], lineno=0)
        return Renaming(KEY, _dict(rules), before=loop)
    if rules is not None:
        renamed: ast.expr = KEY
        for old, new in rules:
            constants = [ast.Constant(old), ast.Constant(new)]
            renamed = syntax.method(renamed, "replace", constants)
        return Renaming(renamed, is_short=len(rules) == 1)
    table = _dict([*changed.items()])
    return Renaming(syntax.method(NAMES, "get", [KEY, KEY]), table)


def _dict(pairs: Sequence[tuple[str, str]]) -> ast.expr:
    keys, values = ([ast.Constant(pair[i]) for pair in pairs] for i in (0, 1))
    return ast.Dict([*keys], [*values])


def _common_prefix(names: Mapping[str, str]) -> str | None:
    """What all names get in front."""
    prefixes = {
        new.removesuffix(old) if new.endswith(old) else "" for old, new in names.items()
    }
    return prefixes.pop() if len(prefixes) == 1 and "" not in prefixes else None


def _rules(names: Mapping[str, str], changed: Mapping[str, str]) -> list[Rule] | None:
    """Replacements of text that, one after the other, rename all keys and only those."""
    mine: dict[Rule, dict[str, str]] = {}
    for old, new in changed.items():
        mine.setdefault(_middle(old, new), {})[old] = new
    rules: list[Rule] = []
    # The longest first: it may begin with a shorter one
    for middle in sorted(mine, key=lambda rule: (-len(rule[0]), rule)):
        rest = [key for key, new in names.items() if key == new]
        for rule in _variants(*middle):
            right = all(replaced(k, [rule]) == v for k, v in mine[middle].items())
            if right and all(replaced(key, [rule]) == key for key in rest):
                rules.append(rule)
                break
        else:
            return None
    if len(rules) > MOST or any(replaced(k, rules) != v for k, v in names.items()):
        return None
    return rules


def _middle(old: str, new: str) -> Rule:
    """The components that differ, without those before and after."""
    before, after = old.split("."), new.split(".")
    same = shared(before, after)
    before, after = before[same:], after[same:]
    tail = shared(before[::-1], after[::-1])
    keep = len(before) - tail, len(after) - tail
    return ".".join(before[: keep[0]]), ".".join(after[: keep[1]])


def shared(first: Sequence[str], second: Sequence[str]) -> int:
    """How many items at the beginning are the same."""
    return len(
        [*takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]
    )


def _variants(old: str, new: str) -> Iterator[Rule]:
    """Ways of writing one replacement, from the plainest to the most special."""
    if old and new:
        yield old, new
        yield f"{old}.", f"{new}."
        yield f".{old}", f".{new}"
        yield f".{old}.", f".{new}."
    elif old:
        yield f"{old}.", ""
