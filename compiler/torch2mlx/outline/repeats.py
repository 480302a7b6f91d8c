"""Stretches of a module's code that repeat become a loop over the lists of modules that they call.

x = x + self.attns[0](x)
x = x + self.mlps[0](x)         for attn, mlp in zip(self.attns, self.mlps):
x = x + self.attns[1](x)   ->       x = x + attn(x)
x = x + self.mlps[1](x)             x = x + mlp(x)
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator

import torch.fx

from torch2mlx.ir import intrinsics
from torch2mlx.ir.regions import ITERATIONS, JOINS
from torch2mlx.outline.operands import (
    Base,
    Dim,
    Invoke,
    Item,
    Loop,
    Op,
    Repeat,
    Segment,
    invokes,
    leaves,
    region_of,
)
from torch2mlx.outline.rounds import Differ, Rounds, renamed, renamed_in, skeleton
from torch2mlx_templates.helpers import assign

Node = torch.fx.Node
BOUND = JOINS | ITERATIONS | {assign, intrinsics.store}  # never in a loop of ours
FEWEST = 3  # rounds of a loop over no list or over a part of one


def roll_repeats(segment: Segment, lists: set[str]) -> None:
    """Roll the code of one segment that repeats.

    Args:
        segment: Changed in place.
        lists: Paths of what is a list or dict in the generated module.
    """
    prefix = f"{segment.path}." if segment.path else ""

    def is_list(path: str) -> bool:
        # Children of the module itself that have numbers are one
        return not path or (prefix + path).rstrip(".") in lists

    for number in itertools.count():
        found = _best(segment, is_list, number)
        if found is None:
            return
        start, repeat, names = found
        end = start + sum(map(len, repeat.rounds))
        rest = [renamed(item, names) for item in segment.items[end:]]
        segment.items[start:] = [repeat, *rest]
        segment.outputs = [renamed_in(value, names) for value in segment.outputs]


def _best(
    segment: Segment, is_list: Callable[[str], bool], number: int
) -> tuple[int, Repeat, dict[Node, Node]] | None:
    """The loop that saves most: where it begins, and what code after it has to take."""
    items = segment.items
    skeletons = [skeleton(item) for item in items]
    best: tuple[tuple[int, ...], int, Repeat, dict[Node, Node]] | None = None
    for start, length, count in dict.fromkeys(_candidates(items, is_list)):
        if best is not None and best[0][0] >= (count - 1) * length:
            continue
        found = _longest(segment, skeletons, start, length, count, is_list, number)
        if found is None:
            continue
        repeat, names = found
        setup = len(repeat.variables) + len(repeat.varying) + len(repeat.collected)
        rank = ((len(repeat.rounds) - 1) * length, -setup, -start)
        if best is None or rank > best[0]:
            best = rank, start, repeat, names
    return best[1:] if best else None


def _candidates(
    items: list[Item], is_list: Callable[[str], bool]
) -> Iterator[tuple[int, int, int]]:
    """(start, length, number of rounds) of what calls a list's elements at equal distances."""
    calls: dict[tuple[str, ...], list[int]] = {}
    for position, item in enumerate(items):
        if isinstance(item, Invoke | Loop):
            path = item.path if isinstance(item, Invoke) else item.bases[0]
            for key in {(path,), *_places(path, is_list)}:
                calls.setdefault(key, []).append(position)
    for positions in calls.values():
        for first, second in itertools.combinations(range(len(positions)), 2):
            length = positions[second] - positions[first]
            if second - first > 4:
                continue
            count = 1
            taken = set(positions)
            while positions[first] + count * length in taken:
                count += 1
            for offset in range(length):
                start = positions[first] - offset
                fits = min(count, (len(items) - start) // length)
                if start >= 0 and fits > 1:
                    yield start, length, fits


def _places(path: str, is_list: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """For each list that a path goes through: the list, and what follows its element."""
    parts = path.split(".")
    for i in range(len(parts)):
        base = ".".join(parts[:i])
        if is_list(base) and (base or parts[0].isdigit()):
            yield base, ".".join(parts[i + 1 :])


def _longest(
    segment: Segment,
    skeletons: list[Hashable],
    start: int,
    length: int,
    count: int,
    is_list: Callable[[str], bool],
    number: int,
) -> tuple[Repeat, dict[Node, Node]] | None:
    """The loop with most rounds that begins at `start`."""
    items = segment.items
    alike = 1
    while alike < count and _same_code(items, skeletons, start, length, alike):
        alike += 1
    for rounds in range(alike, 1, -1):
        end = start + rounds * length
        stretches = [items[i : i + length] for i in range(start, end, length)]
        after = _taken(segment, end)
        found = Rounds(stretches, after, is_list, number)
        try:
            repeat = found.repeat()
        except Differ:
            continue
        if _is_worthwhile(segment, repeat):
            return repeat, found.renamed
    return None


def _same_code(
    items: list[Item], skeletons: list[Hashable], start: int, length: int, k: int
) -> bool:
    """Whether the round with number `k` has the code of the first."""
    region = region_of(items[start])
    for i in range(start, start + length):
        one, other = items[i], items[i + k * length]
        if skeletons[i] != skeletons[i + k * length]:
            return False
        if isinstance(one, Op) and one.node.target in BOUND:
            return False
        if region_of(one) != region or region_of(other) != region:
            return False
    return True


def _taken(segment: Segment, end: int) -> Counter[Node]:
    """The values that code from `end` on takes, 0 for those of which it only takes sizes."""
    found: Counter[Node] = Counter()
    operands = [segment.outputs]
    for item in segment.items[end:]:
        operands.append([item.args, item.kwargs] if isinstance(item, Op) else item.args)
    for leaf in leaves(operands):
        if isinstance(leaf, Node):
            found[leaf] += 1
        elif isinstance(leaf, Dim):
            found[leaf.value] += 0
    return found


def _is_worthwhile(segment: Segment, repeat: Repeat) -> bool:
    """Whether the loop is shorter than what it stands for, and no harder to read."""
    count, length = len(repeat.rounds), len(repeat.body)
    saved = (count - 1) * length - len(repeat.collected) - len(repeat.varying)
    partial = [base for base in repeat.bases if not _is_whole(segment, base)]
    if not all(base.names[0].isdigit() for base in partial):
        return False  # a dict has no slices
    if count < FEWEST:
        whole = not partial
        return bool(repeat.bases) and whole and saved >= bool(repeat.collected)
    return saved > 0


def _is_whole(segment: Segment, base: Base) -> bool:
    """Whether no other element of a list is called."""
    paths = [invoke.path for item in segment.items for invoke in invokes(item)]
    prefix = f"{base.path}." if base.path else ""
    found = {p[len(prefix) :].partition(".")[0] for p in paths if p.startswith(prefix)}
    return found <= set(base.names)
