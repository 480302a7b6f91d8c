"""Sizes that only a few comparisons together make equal.

Two batches that the model concatenates, halves, and uses beside the first: torch.export keeps a symbol for each.
"""

from __future__ import annotations

import itertools
from typing import Any

import sympy

from torch2mlx.capture.captured import Captured
from torch2mlx.capture.conditions import (
    COMPARED,
    as_function,
    guards,
    is_author,
    read_size,
)
from torch2mlx.capture.provenance import Frame

# The sizes that are tried: torch.export takes those that vary to be at least 2
TRIED = range(2, 8)


def unify_implied(captured: Captured) -> None:
    """Give the sizes that torch.export's guards together make equal one symbol.

    Args:
        captured: Its `unified`, `equal` and `notes` are added to.
    """
    equalities = list(_equalities(captured))
    sets = {frozenset(expr.free_symbols) for expr, _ in equalities}
    order = list(captured.hints)
    pairs = {
        p for s in sets for p in itertools.combinations(sorted(s, key=order.index), 2)
    }
    for kept, dropped in sorted(pairs, key=lambda pair: list(map(order.index, pair))):
        if (
            dropped in captured.unified
            or captured.hints[kept] != captured.hints[dropped]
        ):
            continue
        related = [(e, f) for e, f in equalities if {kept, dropped} <= e.free_symbols]
        if _are_equal(captured, [expr for expr, _ in related], kept, dropped):
            one: Any = captured.expr(kept)
            captured.unified[dropped] = one
            captured.equal.append(one)
            what = f"the sizes equal to `{read_size(captured, one)}` must be so"
            frames = [frame for _, frame in related]
            frame = next(filter(is_author, frames), frames[0])
            captured.notes.append(f"{what}: {COMPARED} {frame}")


def _equalities(captured: Captured) -> list[tuple[Any, Frame]]:
    found = []
    for guard, frame in guards(captured.graph):
        expr = guard.subs(captured.unified)
        is_known = expr.free_symbols <= captured.hints.keys()
        if isinstance(expr, sympy.Eq) and is_known and len(expr.free_symbols) > 1:
            found.append((expr, frame))
    return found


def _are_equal(captured: Captured, equalities: list[Any], one: Any, two: Any) -> bool:
    """Whether some equality fails for any two sizes that differ, and all hold for those that do not."""
    known: dict[Any, int] = captured.hints
    free = {symbol: size for symbol, size in known.items() if symbol not in (one, two)}
    holds = [as_function(expr.subs(free), [one, two]) for expr in equalities]
    return all(
        all(each(a, b) for each in holds) == (a == b)
        for a, b in itertools.product(TRIED, TRIED)
    )
