"""Rotary position embedding written out.

h = cat([neg(slice(x, -1, 4, end)), slice(x, -1, 0, 4)], -1)   ->   y = rope(x, 8, base=10000)
y = add(mul(x, cos), mul(h, sin))

where positions count from a number on, and the frequencies do not depend on the input; else

y = add(mul(x, cos), mul(h, sin))                              ->   y = rotate(x, cos, sin)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ROPE, ROTATE
from torch2mlx.passes.constants import stored
from torch2mlx.passes.formulas import is_stored
from torch2mlx.passes.fuse.angles import Angles, Turns
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.parts import Items, Part
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Either,
    Is,
    Match,
    Node,
    Number,
    Pattern,
    Tensor,
    add,
    dtype_of,
    fixed,
    mul,
    sub,
)
from torch2mlx.passes.rewrite import arguments, call, same_shape
from torch2mlx.passes.simplify import UNBOUNDED
from torch2mlx.passes.views import RESHAPES

aten = torch.ops.aten

# As far as float32 arithmetic tells frequencies apart
ACCURACY = 2e-6
CATS = {aten.cat.default}
STACKS = {aten.stack.default}

_last = Is(lambda axis: axis == -1)


def _neg(x: Pattern) -> Pattern:
    return Call({aten.neg.default}, x)


def _joined(first: Pattern, second: Pattern) -> Pattern:
    return Call(CATS, Items(first, second), dim=_last)


def _interleaved(first: Pattern, second: Pattern) -> Pattern:
    """A new last axis of two that is joined with the one before; `_build` checks the shape."""
    stack = Call(STACKS, Items(first, second), dim=Is(lambda axis: axis in (-1, 0)))
    return Either(
        Call({aten.reshape.default}, stack, Is(_anything)),
        Call({aten.flatten.using_ints}, stack, Is(_anything), Is(_anything)),
    )


def _anything(value: Any) -> bool:
    return True


def _turned(first: str, second: str, join: Any) -> Pattern:
    """x * cos + [-second, first] * sin, or the same part by part with tables of half the size."""
    x1, x2 = Part("x", first), Part("x", second)
    cos, sin = Tensor("cos"), Tensor("sin")
    return Either(
        add(mul(Tensor("x"), cos), mul(join(_neg(x2), x1), sin)),
        join(
            sub(mul(x1, cos), mul(x2, sin)),
            add(mul(x2, cos), mul(x1, sin)),
        ),
    )


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    x, traditional = match["x"], _is_interleaved(match)
    size = fixed(captured, x.meta["val"].shape[-1])
    if size is None or size % 2 or not dtype_of(x).is_floating_point:
        raise Declined("the size of a head is not fixed and even")
    flat = [node for node in match.inner if node.target in RESHAPES]
    if not all(_same_shape(captured, node, x) for node in [root, *flat]):
        raise Declined("it changes the shape")
    cos, sin = match["cos"], match["sin"]
    turns = Turns(captured)
    found = _angles(turns, x, cos, sin, traditional, size)
    if isinstance(found, str):
        new = _rotate(captured, root, x, cos, sin, traditional, size, found)
    else:
        new = _rope(captured, root, x, cos, found, traditional, size)
    if dtype_of(new) != dtype_of(root):
        raise Declined(f"it makes {dtype_of(root)} of {dtype_of(x)}")
    return new


def _same_shape(captured: Captured, a: torch.fx.Node, b: torch.fx.Node) -> bool:
    return same_shape(captured, a.meta["val"], b.meta["val"])


def _is_interleaved(match: Match) -> bool:
    return any(node.target in STACKS for node in match.inner)


def _angles(
    turns: Turns,
    x: torch.fx.Node,
    cos: torch.fx.Node,
    sin: torch.fx.Node,
    traditional: bool,
    size: int,
) -> Angles | str:
    """The angles of half of the channels, or why they are not known."""
    first, second = turns.of(cos), turns.of(sin)
    if first is None or second is None:
        return "its positions or frequencies are not known"
    if first.function == second.function == "table":
        first = first.read(second)
        if first is None:
            return "its tables are not the cosines and sines of positions"
    elif (first.function, second.function) != ("cos", "sin"):
        return "it is no rotation"
    elif not first.same_turn(second):
        return "the angles of cosine and sine differ"
    if first.channels != -1 or not first.offset.is_Integer:
        return "its angles are not one per channel, from a fixed position on"
    if turns.size(cos, first.positions) != turns.size(x, first.positions):
        return "positions are not along an axis of what is rotated"
    frequencies = first.frequencies
    if len(frequencies) == size:
        pairs = frequencies.view(-1, 2).T if traditional else frequencies.view(2, -1)
        if not torch.equal(*pairs):
            return "the two channels of a pair turn differently"
        frequencies = pairs[0]
    if len(frequencies) != size // 2 or not bool((frequencies > 0).all()):
        return "it does not turn every channel"
    return Angles(
        first.offset, frequencies.contiguous(), first.positions, -1, "", first.factor
    )


def _rope(
    captured: Captured,
    root: torch.fx.Node,
    x: torch.fx.Node,
    cos: torch.fx.Node,
    angles: Angles,
    traditional: bool,
    size: int,
) -> torch.fx.Node:
    found = base_of(angles.frequencies)
    if found is None:
        base, scale = None, 1.0
        freqs = _freqs(captured, cos, (1 / angles.frequencies).float())
    else:
        (base, scale), freqs = found, None
    swap = angles.positions != -2
    if swap:
        x = call(root, aten.transpose.int, x, angles.positions, -2)
    offset = int(angles.offset)
    new = call(root, ROPE, x, size, traditional, base, scale, offset, freqs)
    if swap:
        new = call(root, aten.transpose.int, new, angles.positions, -2)
    if not math.isclose(angles.factor, 1, rel_tol=ACCURACY):
        new = call(root, aten.mul.Tensor, new, angles.factor)
    return new


def _freqs(
    captured: Captured, cos: torch.fx.Node, values: torch.Tensor
) -> torch.fx.Node:
    """The frequencies as a buffer of the module that computes them, once for all that rotate by them."""
    for node in captured.graph.nodes:
        key = captured.weights.get(node.name) if node.op == "placeholder" else None
        if key is None or is_stored(captured, key):
            continue
        if torch.equal(captured.tensors[key], values):
            return node
    while cos.target is not aten.cos.default and cos.all_input_nodes:
        cos = cos.all_input_nodes[0]
    return stored(captured, cos, values, "rope_freqs")


def base_of(frequencies: torch.Tensor) -> tuple[float, float] | None:
    """(base, scale) such that frequency i is scale * base**(-i / n), or None."""
    count, scale = len(frequencies), float(frequencies[0])
    if count > 1 and not frequencies[1] < frequencies[0]:
        return None
    if math.isclose(scale, 1, rel_tol=ACCURACY):
        scale = 1.0
    elif math.isclose(1 / scale, round(1 / scale), rel_tol=ACCURACY):
        scale = 1 / round(1 / scale)
    base = 10000.0
    if count > 1:
        base = float(frequencies[-1] / scale) ** (-count / (count - 1))
        rounded = float(f"{base:.5g}")
        base = rounded if math.isclose(base, rounded, rel_tol=1e-4) else base
    wanted = scale * base ** -(torch.arange(count, dtype=torch.float64) / count)
    close = torch.allclose(frequencies, wanted, rtol=ACCURACY, atol=0)
    return (base, scale) if close else None


def _rotate(
    captured: Captured,
    root: torch.fx.Node,
    x: torch.fx.Node,
    cos: torch.fx.Node,
    sin: torch.fx.Node,
    traditional: bool,
    size: int,
    why: str,
) -> torch.fx.Node:
    """The compact form, with the tables that the model computes."""
    if {dtype_of(node) for node in (cos, sin)} != {dtype_of(x)}:
        raise Declined(f"{why}, and its tables have another dtype")
    sizes = [fixed(captured, node.meta["val"].shape[-1]) for node in (cos, sin)]
    if sizes != [size, size]:
        raise Declined(f"{why}, and its tables have not the size of a head")
    return call(root, ROTATE, x, cos, sin, traditional)


def _build_partial(
    captured: Captured, root: torch.fx.Node, match: Match
) -> torch.fx.Node:
    """cat([rope(x[..., :r]), x[..., r:]], -1)"""
    turned, rest, swap = match["turned"], match["rest"], match.get("axis")
    given = arguments(turned)
    if given["dims"] != fixed(captured, given["self"].meta["val"].shape[-1]):
        raise Declined("a part of it is rotated already")
    part = given["self"]
    if swap is not None:
        if part.target is not aten.transpose.int or part.args[1:] != (swap, -2):
            raise Declined("it is rotated along another axis")
        part = part.args[0]
    if part.target is not aten.slice.Tensor or rest.target is not aten.slice.Tensor:
        raise Declined("")
    first, second = arguments(part), arguments(rest)
    x = first["self"]
    if second["self"] is not x or first["step"] != 1 or second["step"] != 1:
        raise Declined("what is appended is no part of what is rotated")
    ndim = x.meta["val"].ndim
    if any(g["dim"] % ndim != ndim - 1 for g in (first, second)):
        raise Declined("it is cut along another axis")
    whole = range(fixed(captured, x.meta["val"].shape[-1]) or UNBOUNDED)
    if whole[first["start"] : first["end"]] != whole[: given["dims"]]:
        raise Declined("it does not rotate the first channels")
    if whole[second["start"] : second["end"]] != whole[given["dims"] :]:
        raise Declined("it does not keep all other channels")
    options = [given[name] for name in list(given)[1:]]
    if swap is None:
        return call(root, ROPE, x, *options)
    new = call(root, ROPE, call(root, aten.transpose.int, x, swap, -2), *options)
    return call(root, aten.transpose.int, new, swap, -2)


ROPES = Fusion(
    "rope",
    frozenset(CATS | RESHAPES | {aten.add.Tensor}),
    Either(
        _turned("first", "second", _joined),
        _turned("even", "odd", _interleaved),
    ),
    _build,
)
PARTIAL_ROPES = Fusion(
    "partial_rope",
    frozenset(CATS),
    Call(
        CATS,
        Items(
            Either(
                Node({ROPE}, "turned"),
                Call(
                    {aten.transpose.int},
                    Node({ROPE}, "turned"),
                    Number("axis"),
                    Number(value=-2),
                ),
            ),
            Tensor("rest"),
        ),
        dim=_last,
    ),
    _build_partial,
)
