"""Branches and loops in a flat graph.

The calls of a branch or of a loop's body stand in the graph like all others; `meta["region"]` of each says
which branches and loops it is in, as pairs (number, part), the outermost first. The functions here tie
them together. Where a call needs no region of its own it may be moved out of it, but never into a loop.

    n = carried(zeros)            # region (1, "loop")
    t = lt(n, 3)                  # region (1, "loop"), (1, "test")
    m = add(n, 1)                 # region (1, "loop"), (1, "body")
    r = loop(t, [n], [m], [], []) # no region: r[0] is what n is in the end
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch.fx
from torch.fx.node import map_arg

Region = tuple[tuple[int, Any], ...]


def choose(condition: Any, first: Any, second: Any) -> Any:
    """The results of one of two branches: those of `first` where `condition` holds."""
    return first if bool(condition.item()) else second


def carried(initial: Any) -> Any:
    """A variable that a loop rebinds; this call is its value at the beginning of a round."""
    return initial


def element(sequence: Any) -> Any:
    """The element of `sequence`, along its first axis, that a round of a loop takes."""
    return sequence[0]


def loop(
    test: Any,
    variables: Sequence[Any],
    following: Sequence[Any],
    elements: Sequence[Any],
    collected: Sequence[Any],
) -> list[Any]:
    """The variables of a loop when it has ended, and what its rounds gave, stacked.

    Args:
        test: Whether there is another round; None for a loop over `elements`.
        variables: What `carried` gives.
        following: What they are in the next round.
        elements: What `element` gives.
        collected: One result of each round each.
    """
    raise NotImplementedError("a loop runs in generated code only")


JOINS = {choose, loop}
ITERATIONS = {carried, element}


def region(node: torch.fx.Node) -> Region:
    """The branches and loops that a node of a captured or lowered graph is in."""
    if "region" in node.meta:
        return node.meta["region"]
    origin = node.meta.get("origin")
    return () if origin is None else origin.meta.get("region", ())


def is_inside(inner: Region, outer: Region) -> bool:
    """Whether `inner` is `outer` or in it."""
    return inner[: len(outer)] == outer


def common(regions: Iterable[Region]) -> Region:
    """The innermost region that holds all of them."""
    found: Region | None = None
    for other in regions:
        if found is None:
            found = other
        while not is_inside(other, found):
            found = found[:-1]
    return found or ()


def parts(node: torch.fx.Node) -> list[Region]:
    """The regions of the branches of a `choose`, or of the parts of a `loop`, in order."""
    around, number = region(node), number_of(node)
    if node.target is choose:
        return [(*around, (number, part)) for part in (0, 1)]
    inner = (*around, (number, "loop"))
    return [inner, (*inner, (number, "test")), (*inner, (number, "body"))]


def number_of(node: torch.fx.Node) -> int:
    """The number of the branches or the loop that a node ties together."""
    meta = node.meta if "number" in node.meta else node.meta["origin"].meta
    return meta["number"]


def uses(node: torch.fx.Node) -> list[tuple[torch.fx.Node, Region]]:
    """What a node takes, each with the region in which it is taken."""
    found: list[tuple[torch.fx.Node, Region]] = []

    def take(value: Any, where: Region) -> None:
        map_arg(value, lambda n: found.append((n, where)))

    if node.target is choose:
        take(node.args[0], region(node))
        for value, where in zip(node.args[1:], parts(node), strict=True):
            take(value, where)
    elif node.target is loop:
        inner, test, body = parts(node)
        take(node.args[0], test)
        take((node.args[1], node.args[3]), inner)
        take((node.args[2], node.args[4]), body)
    elif node.target in ITERATIONS:
        take(node.args, region(node)[:-1])
    else:
        take((node.args, node.kwargs), region(node))
    return found
