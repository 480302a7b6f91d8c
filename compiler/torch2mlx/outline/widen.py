"""Calls that take one value where other calls of their class take two: it is given twice.

Attention(x)          k = self.k(x)                  Attention(x, x)
Attention(x, memory)  k = self.k(memory)     ->      Attention(x, memory)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.fx

from torch2mlx.outline.operands import Dim, Invoke, Op, Segment, SizeOp, invokes
from torch2mlx.outline.template import Abstraction, Instances, root


def callers(segments: list[Segment]) -> dict[int, Invoke | None]:
    """The call of each segment, by its id; None for a call that stands in a loop."""
    found: dict[int, Invoke | None] = {}
    for segment in segments:
        for item in segment.items:
            for invoke in invokes(item):
                known = invoke if isinstance(item, Invoke) else None
                found[id(invoke.callee)] = known
    return found


def widen(
    group: list[Segment], calls: dict[int, Invoke | None], instances: Instances
) -> None:
    """Give the segments of one class the same inputs where that makes their code the same.

    Args:
        group: Segments of one PyTorch class, changed in place.
        calls: The call of each segment.
        instances: The classes of submodules.
    """
    plain = [s for s in group if _is_plain(s)]
    for wide in sorted(plain, key=lambda s: -len(s.inputs)):
        narrow = [
            s
            for s in plain
            if len(s.inputs) + 1 == len(wide.inputs) and calls.get(id(s)) is not None
            if _shape(s) == _shape(wide)
        ]
        for segment in narrow:
            found = _doubled(segment, wide, instances)
            if found is not None:
                call = calls[id(segment)]
                assert call is not None
                _widen(segment, wide, call, *found)


def _is_plain(segment: Segment) -> bool:
    """Whether a segment has no loops, and code outside it uses nothing that it calls."""
    adopted = _adopted(segment)
    return all(
        isinstance(item, Op) or (isinstance(item, Invoke) and root(item) not in adopted)
        for item in segment.items
    )


def _adopted(segment: Segment) -> frozenset[str]:
    return frozenset(path.partition(".")[0] for path in segment.adopted)


def _shape(segment: Segment) -> list[Any]:
    """What each item does, without its operands."""
    return [i.path if isinstance(i, Invoke) else i.node.target for i in segment.items]  # type: ignore[union-attr]


def _doubled(
    narrow: Segment, wide: Segment, instances: Instances
) -> tuple[int, int] | None:
    """Which input of `wide` is which other one in `narrow`; None where the code differs in more."""
    key = Abstraction(narrow, instances, _adopted(narrow)).run().key
    for extra, same in _pairs(len(wide.inputs)):
        double = {wide.inputs[extra]: wide.inputs[same]}
        skip = _adopted(wide)
        if Abstraction(wide, instances, skip, double=double).run().key == key:
            return extra, same
    return None


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    for extra in reversed(range(count)):
        yield from ((extra, same) for same in range(count) if same != extra)


def _widen(narrow: Segment, wide: Segment, call: Invoke, extra: int, same: int) -> None:
    new = wide.inputs[extra]
    for item, model in zip(narrow.items, wide.items, strict=True):
        item.args = _taken(item.args, model.args, new)  # type: ignore[misc]
        if isinstance(item, Op) and isinstance(model, Op):
            item.kwargs = _taken(item.kwargs, model.kwargs, new)
    narrow.outputs = _taken(narrow.outputs, wide.outputs, new)
    call.args.insert(extra, call.args[same - (same > extra)])
    narrow.inputs.insert(extra, new)
    narrow.names.insert(extra, wide.names[extra])


def _taken(own: Any, model: Any, new: torch.fx.Node) -> Any:
    """An operand that takes `new` where that of the model does."""
    if isinstance(own, dict):
        return {k: _taken(v, model.get(k), new) for k, v in own.items()}
    if isinstance(own, list | tuple):
        return type(own)(_taken(a, b, new) for a, b in zip(own, model, strict=True))
    if isinstance(own, slice):
        parts = [
            (own.start, model.start),
            (own.stop, model.stop),
            (own.step, model.step),
        ]
        return slice(*(_taken(a, b, new) for a, b in parts))
    if isinstance(own, SizeOp):
        return SizeOp(own.function, _taken(own.args, model.args, new))
    if isinstance(own, Dim):
        return Dim(new, own.axis) if model.value is new else own
    return new if model is new else own
