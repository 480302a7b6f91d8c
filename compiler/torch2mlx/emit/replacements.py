"""Names that differ in several places, as replacements of text: numbers stay, what is between them changes.

encoder.layer.0.attention.attention.query.weight    encoder.layer -> layers
layers.0.attention.q_proj.weight                    attention.query -> q_proj
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

Rule = tuple[str, str]
Parts = tuple[str, ...]
Kind = tuple[Parts, Parts]
# Components before and after that a replacement takes along, from the plainest to the most special; a half
# is the dot alone
CONTEXTS = (
    (0, 0),
    (0, 0.5),
    (0.5, 0),
    (0.5, 0.5),
    (1, 0),
    (0, 1),
    (1, 0.5),
    (1, 1),
    (2, 0),
    (0, 2),
    (2, 1),
)
TRIES = 100


@dataclass(frozen=True)
class Edit:
    """What one name has in another one's place, and what is around it."""

    old: Parts
    new: Parts
    before: Parts
    after: Parts

    def rule(self, context: tuple[float, float]) -> Rule | None:
        """The replacement with some of what is around it; None where there is not so much, or a number."""
        left, right = context
        if left > len(self.before) or right > len(self.after):
            return None
        before = self.before[len(self.before) - int(left) :]
        after = self.after[: int(right)]
        if any(part.isdigit() for part in (*before, *after)):
            return None
        texts = [".".join((*before, *part, *after)) for part in (self.old, self.new)]
        if not texts[0]:
            return None
        first, last = "." * (left % 1 > 0), "." * (right % 1 > 0)
        old, new = (f"{first}{text}{last}" if text else "" for text in texts)
        return old, new or (first and last)


def replaced(key: str, rules: Iterable[Rule]) -> str:
    """A key after all replacements, one after the other."""
    for old, new in rules:
        key = key.replace(old, new)
    return key


def replacements(names: Mapping[str, str], most: int) -> list[Rule] | None:
    """At most `most` replacements that rename all keys as `names` says; None where none are found."""
    edits: dict[str, list[Edit]] = {}
    for old, new in names.items():
        found = _edits(old, new)
        if found is None:
            return None
        edits[old] = found
    kinds = {(e.old, e.new) for found in edits.values() for e in found}
    contexts = dict.fromkeys(sorted(kinds), 0)
    general: set[Kind] = set()
    for _ in range(TRIES):
        rules = _rules(edits, contexts)
        wrong = [key for key, new in names.items() if replaced(key, rules) != new]
        if not wrong:
            return [*rules] if len(rules) <= most else None
        # What does most harm has to say more of where it belongs, if it can
        guilty = Counter(
            kind
            for key in wrong
            for kind in _guilty(key, edits[key], rules, contexts)
            if kind not in general
        )
        if not guilty:
            return None
        kind = min(guilty, key=lambda kind: (-guilty[kind], kind))
        contexts[kind] += 1
        if not _is_known(kind, edits, contexts[kind]):
            contexts[kind] = 0
            general.add(kind)
    return None


def _edits(old: str, new: str) -> list[Edit] | None:
    """The edits between the numbers of two names, None where these differ."""
    before, after = (_divided(name) for name in (old, new))
    if [part for part in before if part[0].isdigit()] != [
        part for part in after if part[0].isdigit()
    ] or len(before) != len(after):
        return None
    found: list[Edit] = []
    whole, place = old.split("."), 0
    for first, second in zip(before, after, strict=True):
        if first != second:
            same = _shared(first, second)
            tail = _shared(first[same:][::-1], second[same:][::-1])
            start, stop = place + same, place + len(first) - tail
            changed = second[same : len(second) - tail]
            around = tuple(whole[:start]), tuple(whole[stop:])
            found.append(Edit(tuple(whole[start:stop]), changed, *around))
        place += len(first)
    return found


def _divided(name: str) -> list[Parts]:
    """The components of a name, in runs of numbers and of others."""
    return [tuple(run) for _, run in groupby(name.split("."), str.isdigit)]


def _shared(first: Parts, second: Parts) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _rules(
    edits: Mapping[str, list[Edit]], contexts: Mapping[Kind, int]
) -> dict[Rule, Kind]:
    """The replacements, the longest first, each with the kind of edit that it is for."""
    rules: dict[Rule, Kind] = {}
    for edit in (edit for found in edits.values() for edit in found):
        kind = edit.old, edit.new
        rule = _rule(edit, contexts[kind])
        if rule is not None:
            rules[rule] = kind
    ordered = sorted(rules, key=lambda rule: (-len(rule[0]), rule))
    return {rule: rules[rule] for rule in ordered}


def _rule(edit: Edit, start: int) -> Rule | None:
    found = map(edit.rule, CONTEXTS[start:])
    return next((rule for rule in found if rule is not None), None)


def _is_known(kind: Kind, edits: Mapping[str, list[Edit]], context: int) -> bool:
    """Whether all edits of a kind have that much, or more, around them."""
    return all(
        _rule(edit, context) is not None
        for found in edits.values()
        for edit in found
        if (edit.old, edit.new) == kind
    )


def _guilty(
    key: str,
    edits: list[Edit],
    rules: Mapping[Rule, Kind],
    contexts: Mapping[Kind, int],
) -> list[Kind]:
    """The kind of the first replacement that changes `key` and is not its own; and its own kinds."""
    own = {_rule(edit, contexts[edit.old, edit.new]) for edit in edits}
    kinds = [(edit.old, edit.new) for edit in edits]
    for rule, kind in rules.items():
        if rule[0] in key and rule not in own:
            return [kind, kind, *kinds]
        key = key.replace(*rule)
    return kinds
