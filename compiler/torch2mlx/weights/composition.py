"""A plan that begins one step earlier: at the checkpoint that the sources of another plan are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch2mlx.weights.plan import Step, WeightEntry, WeightPlan


def composed(plan: WeightPlan, first: WeightPlan) -> WeightPlan | None:
    """The plan that makes, of the sources of `first`, what `plan` makes of its results.

    Args:
        plan: Its sources are keys of a state dict.
        first: How that state dict is made of a checkpoint.

    Returns:
        The plan; None where one entry would have to cut or move several arrays before it merges them, or a
        constant has the name of an array of the checkpoint.
    """
    if not first.sources().keys().isdisjoint(plan.constants):
        return None
    made = {entry.key: entry for entry in first.entries}
    # Of tied weights, any one will do
    for alias, key in plan.aliases.items():
        if key not in made and alias in made:
            made[key] = made[alias]
    entries: list[WeightEntry] = []
    for entry in plan.entries:
        found = _composed(entry, made, set(plan.constants))
        if found is None:
            return None
        entries.append(found)
    used = {source for entry in entries for source in entry.sources}
    aliases = {
        source: made[key].sources[0]
        for alias, key in plan.aliases.items()
        # Its own name where it is not in there
        for source in _sources(made, alias) or (alias,)
        if key in made and source not in used
    }
    unused = {
        source: why
        for key, why in plan.unused.items()
        for source in _sources(made, key)
    }
    unused = {
        key: why
        for key, why in {**unused, **first.unused}.items()
        if key not in used and key not in aliases
    }
    try:
        return WeightPlan(tuple(entries), unused, aliases, plan.constants)
    except ValueError:
        return None


def _sources(made: dict[str, WeightEntry], key: str) -> tuple[str, ...]:
    return made[key].sources if key in made else ()


def _composed(
    entry: WeightEntry, made: dict[str, WeightEntry], constants: set[str]
) -> WeightEntry | None:
    parts = [
        made[source] if source not in constants else None for source in entry.sources
    ]
    plain = [part is None or is_plain(part) for part in parts]
    if all(plain):
        pairs = zip(entry.sources, parts, strict=True)
        names = tuple(old if part is None else part.sources[0] for old, part in pairs)
        return replace(entry, sources=names)
    part, *others = parts
    if others or part is None or entry.merge or entry.expression:
        return None
    steps = simplified((*part.steps, *entry.steps), part)
    target = entry.target or part.target
    return replace(part, key=entry.key, steps=steps, target=target)


def is_plain(entry: WeightEntry) -> bool:
    """Whether an entry only gives an array another name."""
    return not (entry.steps or entry.merge or entry.target or len(entry.sources) > 1)


def is_by_name(plan: WeightPlan) -> bool:
    """Whether a plan does nothing to what it takes: each array is there under its own name."""
    return not plan.unused and all(
        is_plain(entry) and entry.sources == (entry.key,) for entry in plan.entries
    )


def simplified(steps: Iterable[Step], entry: WeightEntry) -> tuple[Step, ...]:
    """The same steps, done to what `entry` merges, without those that undo each other."""
    result: list[Step] = []
    for step in steps:
        before = replace(entry, steps=tuple(result)).out_shape
        match result[-1:], step:
            case [("transpose", first)], ("transpose", second):
                result[-1] = ("transpose", tuple(first[axis] for axis in second))
            case [("reshape", _)], ("reshape", _):
                result[-1] = step
            case _, ("reshape", shape) if shape == before:
                pass
            case _:
                result.append(step)
        if result and result[-1] == ("transpose", tuple(range(len(before)))):
            result.pop()
    return tuple(result)
