"""Which arrays are angles that grow with the position, or the cosines and sines of such.

mul(to(unsqueeze(arange(n), 1), float32), f)      element [t, i] is t * f[i]
cos(cat([a, a], -1))                              element [t, i] is cos(t * f[i mod h])
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.formulas import is_stored
from torch2mlx.passes.fuse.parts import part_of
from torch2mlx.passes.rewrite import arguments, tensor_of
from torch2mlx.passes.sizes import expression
from torch2mlx.passes.views import EXPANSIONS, PERMUTES, RESHAPES, axis_order

aten = torch.ops.aten

# Of float32 angles: that of the frequency, times the position
TABLE_ERROR = 1e-6
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Angles:
    """Element [.., t, .., i] is `factor * function((offset + t) * frequencies[i])`.

    Attributes:
        offset: The first position.
        frequencies: One number for each element along `channels`, or one for all; of a table its rows.
        positions: The axis of t, counted from the end.
        channels: The axis of i, or None where there is one frequency.
        function: "", "cos" or "sin"; "table" where row offset + t of a table is read.
        factor: What the function's values are multiplied with.
    """

    offset: sympy.Expr
    frequencies: torch.Tensor
    positions: int
    channels: int | None = None
    function: str = ""
    factor: float = 1.0

    def same_turn(self, other: Angles) -> bool:
        """Whether two arrays are of the same angles, times the same number."""
        return (
            (self.offset, self.factor) == (other.offset, other.factor)
            and (self.positions, self.channels) == (other.positions, other.channels)
            and torch.equal(self.frequencies, other.frequencies)
        )

    def read(self, sines: Angles) -> Angles | None:
        """Where this and `sines` are tables of cosines and sines: the cosines as angles, else None."""
        if not self.same_turn(dataclasses.replace(sines, frequencies=self.frequencies)):
            return None
        cosines, table = self.frequencies, sines.frequencies
        if cosines.shape != table.shape or len(table) < 2:
            return None
        frequencies = torch.arcsin(table[1])
        rows = torch.arange(len(table), dtype=torch.float64)[:, None]
        error = TABLE_ERROR * (rows + 1)
        for values, function in ((cosines, torch.cos), (table, torch.sin)):
            if not bool(((function(rows * frequencies) - values).abs() <= error).all()):
                return None
        return dataclasses.replace(self, frequencies=frequencies, function="cos")


class Turns:
    """What is known about the angles in a graph."""

    def __init__(self, captured: Captured):
        self.captured = captured
        self.formulas = Formulas(captured)
        self._known: dict[torch.fx.Node, Angles | None] = {}

    def of(self, node: Any) -> Angles | None:
        """The angles that a node yields, or None."""
        if tensor_of(node) is None:
            return None
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def constant(self, node: Any) -> torch.Tensor | None:
        """The values of a node that no checkpoint changes, or None."""
        if not isinstance(node, torch.fx.Node):
            return None
        if node.op == "placeholder":
            key = self.captured.weights.get(node.name)
            if key is None or is_stored(self.captured, key):
                return None
            tensor = self.captured.tensors[key].detach()
            known = tensor.device.type != "meta" and tensor.is_floating_point()
            return tensor.to(torch.float64) if known else None
        if node.target not in RESHAPES | PERMUTES | EXPANSIONS | {aten.to.dtype}:
            return None
        source = self.constant(node.args[0])
        if source is None:
            return None
        if node.target in PERMUTES:
            return source.permute(axis_order(node))
        if node.target in EXPANSIONS:  # its users broadcast by themselves
            new = node.meta["val"].ndim - source.ndim
            return source[(None,) * new]
        if node.target is aten.to.dtype:
            return source
        sizes = [self.captured.expr(size) for size in node.meta["val"].shape]
        if not all(size.is_Integer for size in sizes):
            return None
        return source.reshape([int(size) for size in sizes])

    def table(self, node: Any) -> torch.Tensor | None:
        """A matrix whose values no checkpoint changes, or None; leading axes of size 1 do not count."""
        values = self.constant(node)
        if values is None or values.ndim < 2 or values.shape[:-2].numel() != 1:
            return None
        return values.reshape(values.shape[-2:])

    def counted(self, node: Any) -> tuple[sympy.Expr, int] | None:
        """(first, axis from the end) where integers count along one axis, and are the same along others."""
        formula = self.formulas.of(node)
        moving = [a for a, s in enumerate(formula.steps) if s] if formula else []
        if formula is None or formula.sign or len(moving) != 1:
            return None
        if formula.steps[moving[0]] != 1:
            return None
        return formula.offset, moving[0] - len(formula.steps)

    def size(self, node: torch.fx.Node, axis: int) -> sympy.Expr:
        """A size of the array that a node yields."""
        return self.captured.expr(node.meta["val"].shape[axis])

    def _find(self, node: torch.fx.Node) -> Angles | None:
        if node.op != "call_function":
            return None
        dtype = node.meta["val"].dtype
        found = self._positions(node) or self._computed(node)
        if found is None or (dtype in HALVES and not found.function):
            return None  # angles in half precision are others
        return found

    def _computed(self, node: torch.fx.Node) -> Angles | None:
        rule = RULES.get(node.target)
        return None if rule is None else rule(self, node)

    def _positions(self, node: torch.fx.Node) -> Angles | None:
        """Integers that count from some number on, as floats."""
        if not node.meta["val"].dtype.is_floating_point:
            return None
        if node.target in ARANGES:
            given = arguments(node)
            start, step = given.get("start", 0), given.get("step", 1)
            if step != 1 or isinstance(start, float):
                return None
            offset = expression(self.captured, start)
            return Angles(offset, torch.ones(1, dtype=torch.float64), -1)
        if node.target is not aten.to.dtype:
            return None
        found = self.counted(node.args[0])
        one = torch.ones(1, dtype=torch.float64)
        return None if found is None else Angles(found[0], one, found[1])


Rule = Callable[[Turns, torch.fx.Node], Angles | None]

ARANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}


def _same(turns: Turns, node: torch.fx.Node) -> Angles | None:
    return turns.of(node.args[0])


def _multiplied(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """Angles times a number or times frequencies, or the same divided."""
    other: Any = node.args[1]
    found = turns.of(node.args[0])
    divides = node.target is aten.div.Tensor
    if found is None and not divides:
        found, other = turns.of(other), node.args[0]
    if found is None:
        return None
    if type(other) in (int, float) and other:
        number: Any = 1 / other if divides else other
        if found.function:
            return dataclasses.replace(found, factor=found.factor * number)
        return dataclasses.replace(found, frequencies=found.frequencies * number)
    values = turns.constant(other)
    if values is None or found.function or found.channels is not None:
        return None
    return _with_frequencies(found, 1 / values if divides else values, node)


def _with_frequencies(
    found: Angles, values: torch.Tensor, node: torch.fx.Node
) -> Angles | None:
    moving = [axis - values.ndim for axis, size in enumerate(values.shape) if size > 1]
    if not moving and values.numel() == 1:
        frequencies = found.frequencies * values.flatten()
        return dataclasses.replace(found, frequencies=frequencies)
    if len(moving) != 1 or moving[0] == found.positions:
        return None
    frequencies = found.frequencies * values.flatten()
    return dataclasses.replace(found, frequencies=frequencies, channels=moving[0])


def _outer(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """[.., D, 1] @ [.., 1, T], or [.., T, 1] @ [.., 1, D]."""
    left, right = (arg for arg in node.args[:2])
    if turns.size(left, -1) != 1:  # type: ignore[arg-type]
        return None
    for positions, constant in ((left, right), (right, left)):
        found, values = turns.of(positions), turns.constant(constant)
        if found is None or values is None or found.function or found.channels:
            continue
        return _with_frequencies(found, values, node)
    return None


def _of(function: str) -> Rule:
    def rule(turns: Turns, node: torch.fx.Node) -> Angles | None:
        found = turns.of(node.args[0])
        if found is None or found.function or found.factor != 1:
            return None
        return dataclasses.replace(found, function=function)

    return rule


def _reshaped(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """Axes of size 1 come and go."""
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    found = turns.of(source) or _paired(turns, node)
    if found is None or turns.of(source) is None:
        return found
    before = [turns.size(source, a) for a in range(source.meta["val"].ndim)]
    after = [turns.size(node, a) for a in range(node.meta["val"].ndim)]
    kept = [axis for axis, size in enumerate(before) if size != 1]
    places = [axis for axis, size in enumerate(after) if size != 1]
    if [before[a] for a in kept] != [after[a] for a in places]:
        return None
    moved = {
        old - len(before): new - len(after)
        for old, new in zip(kept, places, strict=True)
    }
    return _moved(found, moved)


def _paired(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """`stack([a, a], -1)` flattened: each element twice."""
    source = node.args[0]
    if not isinstance(source, torch.fx.Node) or source.target is not aten.stack.default:
        return None
    parts, dim = source.args[0], arguments(source)["dim"]
    assert isinstance(parts, Sequence)
    found = turns.of(parts[0])
    last = source.meta["val"].ndim - 1
    if found is None or found.channels != -1 or dim not in (-1, last):
        return None
    if len(parts) != 2 or parts[0] is not parts[1]:
        return None
    if turns.size(node, -1) != 2 * turns.size(parts[0], -1):  # type: ignore[arg-type]
        return None
    return dataclasses.replace(
        found, frequencies=found.frequencies.repeat_interleave(2, -1)
    )


def _moved(found: Angles, moved: dict[int, int]) -> Angles | None:
    if found.positions not in moved:
        return None
    channels = found.channels
    if channels is not None:
        if channels not in moved:
            return None
        channels = moved[channels]
    return dataclasses.replace(
        found, positions=moved[found.positions], channels=channels
    )


def _permuted(turns: Turns, node: torch.fx.Node) -> Angles | None:
    found = turns.of(node.args[0])
    order = axis_order(node)
    ndim = len(order)
    moved = {old - ndim: new - ndim for new, old in enumerate(order)}
    return None if found is None else _moved(found, moved)


def _sliced(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """A part of the channels."""
    given, found = arguments(node), turns.of(node.args[0])
    ndim = node.meta["val"].ndim
    if found is None:
        return _first_rows(turns, node)
    if given["dim"] % ndim - ndim != found.channels:
        return None
    bounds = [given[name] for name in ("start", "end", "step")]
    if any(not isinstance(b, int | None) for b in bounds):
        return None
    part = found.frequencies[..., slice(*bounds)]
    return dataclasses.replace(found, frequencies=part)


def _concatenated(turns: Turns, node: torch.fx.Node) -> Angles | None:
    parts, ndim = node.args[0], node.meta["val"].ndim
    assert isinstance(parts, Sequence)
    found = [turns.of(part) for part in parts]
    first = found[0]
    dim = arguments(node)["dim"] % ndim - ndim
    if first is None or first.channels != dim:
        return None
    frequencies = []
    for part in found:
        if part is None or part.function != first.function:
            return None
        if not part.same_turn(dataclasses.replace(first, frequencies=part.frequencies)):
            return None
        frequencies.append(part.frequencies)
    return dataclasses.replace(first, frequencies=torch.cat(frequencies, -1))


def _repeated(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """Each channel several times."""
    given, found = arguments(node), turns.of(node.args[0])
    ndim, dim = node.meta["val"].ndim, given["dim"]
    if found is None or dim is None or dim % ndim - ndim != found.channels:
        return None
    if not isinstance(given["repeats"], int):
        return None
    frequencies = found.frequencies.repeat_interleave(given["repeats"], -1)
    return dataclasses.replace(found, frequencies=frequencies)


def _split(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """One of the parts that the channels are split into."""
    found = part_of(turns.captured, node)
    if found is None:
        return None
    source, elements, _ = found
    angles = turns.of(source)
    if angles is None or angles.channels != -1:
        return None
    part = angles.frequencies[..., elements.start : elements.stop]
    return dataclasses.replace(angles, frequencies=part)


def _first_rows(turns: Turns, node: torch.fx.Node) -> Angles | None:
    given = arguments(node)
    table = turns.table(given["self"])
    start = given["start"] or 0
    if table is None or given["dim"] != 0 or given["step"] != 1:
        return None
    if not isinstance(start, int) or start < 0 or node.meta["val"].ndim != 2:
        return None
    return Angles(sympy.Integer(start), table, -2, -1, "table")


def _rows(turns: Turns, node: torch.fx.Node) -> Angles | None:
    """`table[positions]`, as an index, an embedding or a gather."""
    given = arguments(node)
    index = given.get("index", given.get("indices"))
    if isinstance(index, Sequence):
        index = index[0] if len(index) == 1 else None
    table = turns.table(given.get("self", given.get("weight")))
    found = turns.counted(index)
    if table is None or found is None or given.get("dim", 0) != 0:
        return None
    return Angles(found[0], table, found[1] - 1, -1, "table")


def _gathered(turns: Turns, node: torch.fx.Node) -> Angles | None:
    given, ndim = arguments(node), node.meta["val"].ndim
    table, found = turns.table(given["self"]), turns.counted(given["index"])
    if table is None or found is None or given["dim"] % ndim != ndim - 2:
        return None
    if found[1] != -2 or turns.size(node, -1) != table.shape[-1]:
        return None
    return Angles(found[0], table, -2, -1, "table")


RULES: dict[Any, Rule] = {
    aten.to.dtype: _same,
    **dict.fromkeys([aten.mul.Tensor, aten.div.Tensor], _multiplied),
    **dict.fromkeys([aten.matmul.default, aten.bmm.default], _outer),
    aten.cos.default: _of("cos"),
    aten.sin.default: _of("sin"),
    **dict.fromkeys(EXPANSIONS, _same),
    **dict.fromkeys(RESHAPES, _reshaped),
    **dict.fromkeys(PERMUTES, _permuted),
    aten.slice.Tensor: _sliced,
    aten.cat.default: _concatenated,
    aten.repeat_interleave.self_int: _repeated,
    operator.getitem: _split,
    **dict.fromkeys(
        [aten.index.Tensor, aten.index_select.default, aten.embedding.default], _rows
    ),
    aten.gather.default: _gathered,
}
