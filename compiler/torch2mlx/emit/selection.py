"""Some keys out of many, as a condition on `key` and `value` that is short and exact."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Set

from torch2mlx.emit import syntax

KEY = syntax.name("key")
FEW = 2
MANY = 8


def condition(wanted: Set[str], others: Set[str], ranks: Mapping[str, int]) -> ast.expr:
    """True for the keys `wanted` and false for `others`.

    Args:
        wanted: Keys, at least one.
        others: Keys that must not be taken.
        ranks: The number of axes of each array; {} where it is not known.
    """
    if len(wanted) == 1:
        return ast.Compare(KEY, [ast.Eq()], [ast.Constant(*wanted)])
    suffixes = _suffixes(wanted, others)
    if len(suffixes) <= FEW:
        return _ends_with(suffixes)
    found = {ranks.get(key) for key in wanted}
    if ranks and len(found) == 1:
        (rank,) = found
        alike = _suffixes(wanted, {key for key in others if ranks[key] == rank})
        if len(alike) <= FEW:
            value = ast.Attribute(syntax.name("value"), "ndim")
            has_rank = ast.Compare(value, [ast.Eq()], [ast.Constant(rank)])
            return ast.BoolOp(ast.And(), [has_rank, _ends_with(alike)])
    inner = _inner(wanted, others)
    if inner:
        return ast.Compare(ast.Constant(inner), [ast.In()], [KEY])
    if len(suffixes) <= MANY:
        return _ends_with(suffixes)
    patterns = sorted({_pattern(key) for key in wanted})
    joined = "|".join(patterns)
    if not any(re.fullmatch(joined, key) for key in others) and len(joined) < 400:
        return syntax.call("re.fullmatch", [ast.Constant(joined), KEY])
    prefixes = _prefixes(wanted, others)
    if len(prefixes) <= MANY:
        one, *more = prefixes
        begin = syntax.literal(tuple(prefixes) if more else one)
        return syntax.method(KEY, "startswith", [begin])
    return ast.Compare(KEY, [ast.In()], [syntax.literal(tuple(sorted(wanted)))])


def _ends_with(suffixes: list[str]) -> ast.expr:
    if len(suffixes) == 1:
        return syntax.method(KEY, "endswith", [ast.Constant(suffixes[0])])
    return syntax.method(KEY, "endswith", [syntax.literal(tuple(suffixes))])


def _suffixes(wanted: Iterable[str], others: Iterable[str]) -> list[str]:
    """The fewest components at the end of each key that no other key ends with.

    Too many to be used, where another key ends with the whole of one.
    """
    others = tuple(others)
    found: set[str] = set()
    for key in wanted:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        suffix = next((e for e in ends if not any(o.endswith(e) for o in others)), None)
        if suffix is None:
            return [""] * (MANY + 1)
        found.add(suffix)
    return sorted(
        suffix
        for suffix in found
        if not any(suffix != other and suffix.endswith(other) for other in found)
    )


def _prefixes(wanted: Iterable[str], others: Iterable[str]) -> list[str]:
    """The fewest whole components that keys begin with and no other key does."""
    others = tuple(others)
    found: set[str] = set()
    for key in sorted(wanted):
        parts = [f"{part}." for part in key.split(".")[:-1]]
        starts = ("".join(parts[:count]) for count in range(1, len(parts) + 1))
        free = (s for s in starts if not any(o.startswith(s) for o in others))
        found.add(next(free, key))
    clear = not any(o.startswith(start) for o in others for start in found)
    return sorted(found) if clear else [""] * (MANY + 1)


def _inner(wanted: Iterable[str], others: Iterable[str]) -> str | None:
    """A component that is within all keys `wanted` and within none of the others."""
    first, *rest = sorted(wanted)
    for part in first.split(".")[1:-1]:
        text = f".{part}."
        is_common = not part.isdigit() and all(text in key for key in rest)
        if is_common and not any(text in key for key in others):
            return text
    return None


def _pattern(key: str) -> str:
    """`layers.0.weight` as a pattern that takes any number."""
    parts = (r"\d+" if p.isdigit() else re.escape(p) for p in key.split("."))
    return r"\.".join(parts)
