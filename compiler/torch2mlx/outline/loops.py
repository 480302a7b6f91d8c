"""Runs of calls over a list of modules become a loop.

x = self.layer[0](x, mask)
x = self.layer[1](x, mask)    ->    for layer in self.layer:
x = self.layer[2](x, mask)              x = layer(x, mask)
"""

from __future__ import annotations

import torch.fx

from torch2mlx.outline.operands import (
    Invoke,
    Item,
    Loop,
    Segment,
    item_values,
    region_of,
    values_in,
)
from torch2mlx.outline.repeats import roll_repeats

Step = Invoke | Loop


def roll(segment: Segment, lists: set[str]) -> None:
    """Roll the loops of one segment, inner lists first.

    Args:
        segment: Changed in place.
        lists: Paths of the modules that are lists or dicts of modules.
    """
    lengths = _lengths(segment, lists)
    _roll_chains(segment, lengths, parts=False)
    roll_repeats(segment, lists)
    _roll_chains(segment, lengths, parts=True)
    segment.items = _joined(segment.items, _uses(segment))


def _roll_chains(segment: Segment, lengths: dict[str, list[str]], parts: bool) -> None:
    """Roll chains of calls over whole lists, or also over parts of lists."""
    before = -1
    while len(segment.items) != before:
        before = len(segment.items)
        uses = _uses(segment)
        segment.items = _rolled(segment.items, uses, lengths, parts)


def _lengths(segment: Segment, lists: set[str]) -> dict[str, list[str]]:
    """Attribute path of each list below the module -> the names of the elements it calls."""
    lengths: dict[str, list[str]] = {}
    prefix = f"{segment.path}." if segment.path else ""
    paths = [item.path for item in segment.items if isinstance(item, Invoke)]
    for path in paths:
        while path:
            path, _, name = path.rpartition(".")
            names = lengths.setdefault(path, [])
            if (prefix + path).rstrip(".") in lists and name not in names:
                names.append(name)
    return {path: names for path, names in lengths.items() if names}


def _uses(segment: Segment) -> dict[torch.fx.Node, int]:
    counts: dict[torch.fx.Node, int] = {}
    for item in segment.items:
        for value in set(item_values(item)):
            counts[value] = counts.get(value, 0) + 1
    for value in values_in(segment.outputs):
        counts[value] = counts.get(value, 0) + 1
    return counts


def _path(item: Item) -> str:
    if isinstance(item, Invoke):
        return item.path
    if isinstance(item, Loop) and len(item.bases) == 1 and item.span is None:
        return item.bases[0]
    return ""


def _rolled(
    items: list[Item],
    uses: dict[torch.fx.Node, int],
    lengths: dict[str, list[str]],
    parts: bool,
) -> list[Item]:
    result: list[Item] = []
    i = 0
    while i < len(items):
        run = _run(items, i, uses, lengths)
        loop = _loop(run, lengths) if run else None
        if loop is None or (loop.span is not None and not parts):
            result.append(items[i])
            i += 1
        else:
            result.append(loop)
            i += len(run)
    return result


def _run(
    items: list[Item],
    start: int,
    uses: dict[torch.fx.Node, int],
    lengths: dict[str, list[str]],
) -> list[Step]:
    """The longest chain of calls over one list that begins at `start`."""
    first = items[start]
    base = _path(first).rpartition(".")[0]
    if not _path(first) or base not in lengths:
        return []
    run: list[Step] = [first]  # type: ignore[list-item]
    carried: dict[int, int] | None = None
    names = lengths[base]
    for item in items[start + 1 :]:
        previous = run[-1]
        if _path(item).rpartition(".")[0] != base or not _alike(item, first):
            break
        order = [names.index(_path(step).rpartition(".")[2]) for step in (previous, item)]  # type: ignore[arg-type]
        mapping = _carried(previous, item, uses)  # type: ignore[arg-type]
        if order[1] <= order[0] or mapping is None or carried not in (None, mapping):
            break
        carried = mapping
        run.append(item)  # type: ignore[arg-type]
    return run


def _alike(item: Item, first: Item) -> bool:
    """Whether two steps are written the same: both calls, or both loops over the same kind of list."""
    if region_of(item) != region_of(first):
        return False
    if isinstance(item, Loop) and isinstance(first, Loop):
        return item.named == first.named
    return type(item) is type(first)


def _carried(
    previous: Step, step: Step, uses: dict[torch.fx.Node, int]
) -> dict[int, int] | None:
    """Argument position -> output of the previous step; None when they are no chain."""
    if len(previous.args) != len(step.args) or len(previous.outputs) != len(
        step.outputs
    ):
        return None
    if not step.outputs:
        return None
    mapping: dict[int, int] = {}
    for position, (before, after) in enumerate(
        zip(previous.args, step.args, strict=True)
    ):
        if after in previous.outputs:
            mapping[position] = previous.outputs.index(after)
        elif before != after or type(before) is not type(after):
            return None
    used = {previous.outputs[k] for k in mapping.values()}
    if used != set(previous.outputs) or any(uses.get(v) != 1 for v in previous.outputs):
        return None
    return mapping


def _loop(run: list[Step], lengths: dict[str, list[str]]) -> Loop | None:
    base = _path(run[0]).rpartition(".")[0]
    names = lengths[base]
    named = not names[0].isdigit()
    whole = len(run) == len(names)
    if len(run) == 1:
        step = run[0]
        single = whole and isinstance(step, Invoke) and isinstance(step.callee, Segment)
        if not single or len(step.args) != 1 or len(step.outputs) != 1:
            return None
        return Loop([base], run, {0: 0}, None, named)
    carried = _carried(run[0], run[1], {v: 1 for step in run for v in step.outputs})
    assert carried is not None
    if whole:
        return Loop([base], run, carried, None, named)
    if named or len(run) < 3:
        return None
    indices = [int(_path(step).rpartition(".")[2]) for step in run]
    if indices != list(range(indices[0], indices[-1] + 1)):
        return None
    return Loop([base], run, carried, (indices[0], indices[-1] + 1))


def _joined(items: list[Item], uses: dict[torch.fx.Node, int]) -> list[Item]:
    """Consecutive loops that only pass one value on become one loop over all their lists."""
    result: list[Item] = []
    for item in items:
        last = result[-1] if result else None
        if (
            isinstance(item, Loop)
            and isinstance(last, Loop)
            and _joinable(item)
            and _joinable(last)
            and item.args == last.outputs
            and uses.get(last.outputs[0]) == 1
        ):
            result[-1] = Loop(last.bases + item.bases, last.steps + item.steps, {0: 0})
        else:
            result.append(item)
    return result


def _joinable(loop: Loop) -> bool:
    plain = loop.span is None and not loop.named and len(loop.args) == 1
    return plain and all(isinstance(step, Invoke) for step in loop.steps)
