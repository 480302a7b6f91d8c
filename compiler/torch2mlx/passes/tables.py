"""Rows of tables by positions that a formula gives: slices, and how long an input may be for them.

PyTorch refuses a position beyond the last row of a table; MLX reads past its end.

    embedding(weight [512, 64], arange(n))     ->   slice(weight, 0, 0, n), and n is at most 512
    embedding(weight [2, 64], zeros([b, n]))   ->   expand(slice(weight, 0, 0, 1), [b, n, 64])

PyTorch's own layer stays one, and is called with the positions: of its quantized form there are no slices.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.passes.affine import Affine, Formulas
from torch2mlx.passes.creation import broadcast
from torch2mlx.passes.rewrite import call, replace, tensor_of
from torch2mlx.passes.sizes import input_axis, limit_size, size_node

aten = torch.ops.aten

# Lookup -> (place of the index among its arguments, axis of the table or None for an argument `dim`)
LOOKUPS: dict[Any, tuple[int, int | None]] = {
    aten.embedding.default: (1, 0),
    aten.index_select.default: (2, None),
}


class _Lookup(NamedTuple):
    """Places along an axis of a table, and the formula that gives them."""

    axis: int
    places: torch.Tensor
    found: Affine


def tables(captured: Captured) -> bool:
    """Note the sizes up to which positions are in their tables, and slice rows that follow each other."""
    known = Formulas(captured)
    by_position: dict[torch.fx.Node, _Lookup] = {}
    for node in captured.graph.nodes:
        lookups = _lookups(known, node)
        inside = [_note(captured, known, node, lookup) for lookup in lookups]
        if len(lookups) == 1 and all(inside) and _is_slice(node, lookups[0]):
            by_position[node] = lookups[0]
    changed = False
    for node, lookup in by_position.items():
        table: Any = node.args[0]
        if by_position.keys() >= table.users.keys() and not _is_layer(captured, node):
            rows = _rows(captured, node, lookup)
            if rows is not None:
                replace(node, rows)
                changed = True
    return changed


def _is_layer(captured: Captured, node: torch.fx.Node) -> bool:
    """Whether PyTorch's own layer looks something up."""
    calls = module_calls(node)
    return bool(calls) and captured.classes.get(calls[-1].path) is torch.nn.Embedding


def _lookups(known: Formulas, node: torch.fx.Node) -> list[_Lookup]:
    """What a node looks up in a table by positions that a formula gives."""
    if node.target in LOOKUPS:
        place, axis = LOOKUPS[node.target]
        indices: Any = [(node.args[1] if axis is None else axis, node.args[place])]
    elif node.target is aten.index.Tensor:
        indices = enumerate(node.args[1])  # type: ignore[arg-type]
    else:
        return []
    table = tensor_of(node.args[0])
    found: list[_Lookup] = []
    for axis, index in indices:
        formula, places = known.of(index), tensor_of(index)
        if table is None or places is None or formula is None or formula.sign:
            continue
        found.append(_Lookup(axis % table.ndim, places, formula))
    return found


def _note(
    captured: Captured, known: Formulas, node: torch.fx.Node, lookup: _Lookup
) -> bool:
    """Note the sizes up to which positions are in their table; whether there are any, and all are checked."""
    table = tensor_of(node.args[0])
    assert table is not None
    bounds = known.bounds(lookup.found, lookup.places.shape)
    size = captured.expr(table.shape[lookup.axis])
    if bounds is None or not size.is_Integer:
        return False
    if bounds[1].is_Integer:
        return True  # else PyTorch would have refused the example inputs
    needed = sympy.expand(bounds[1] + 1)
    key = captured.weights.get(getattr(node.args[0], "name", ""))
    symbol, *others = needed.free_symbols
    factor = needed.coeff(symbol)
    if others or not factor.is_Integer or (needed - factor * symbol).free_symbols:
        captured.conditions.append(sympy.Le(needed, size))
        what = f"{needed} is at most {size}"
    else:
        limit = math.floor((size - needed.subs(symbol, 0)) / factor)
        place = input_axis(captured, symbol)
        if place is None:
            return False
        if captured.bounds.get(symbol, math.inf) <= limit:
            return True
        source = None if needed != symbol or key is None else (key, lookup.axis)
        limit_size(captured, symbol, limit, source)
        what = f"`{place[0].name}.shape[{place[1]}]` is at most {limit}"
    captured.notes.append(f"{what}: the rows of a table, {source_line(node)}")
    return True


def _is_slice(node: torch.fx.Node, lookup: _Lookup) -> bool:
    """Whether the only places are one after the other along one axis, or all the same."""
    moving = [step for step in lookup.found.steps if step]
    indices = node.args[1] if node.target is aten.index.Tensor else ()
    return (
        moving in ([], [1])
        and bool(lookup.found.offset.is_Integer and lookup.found.offset >= 0)
        and sum(index is not None for index in indices) <= 1  # type: ignore[union-attr]
    )


def _rows(
    captured: Captured, node: torch.fx.Node, lookup: _Lookup
) -> torch.fx.Node | None:
    """What a node looks up as a slice of its table; None where a size is not to be had."""
    x: Any = node.args[0]
    axis, places, found = lookup
    first, shape = int(found.offset), list(x.meta["val"].shape)
    moving = next((a for a, step in enumerate(found.steps) if step), places.ndim - 1)
    count = places.shape[moving] if any(found.steps) else 1
    if captured.expr(count) != captured.expr(shape[axis]):
        end = _end(captured, node, first, count)
        if end is None:
            return None
        shape[axis] = count
        rows = x.meta["val"].new_empty(shape)
        x = call(node, aten.slice.Tensor, x, axis, first, end, result=rows)
    if places.ndim == 0:
        x = call(node, aten.squeeze.dim, x, axis)
    for other in range(places.ndim):
        if other != moving:
            x = call(node, aten.unsqueeze.default, x, axis + other)
    return broadcast(captured, node, x, node.meta["val"].shape)


def _end(captured: Captured, node: torch.fx.Node, first: int, count: Any) -> Any:
    """`first + count` as an argument of a call before `node`; None where the count is not to be had."""
    end = size_node(captured, node, captured.expr(count) + first)
    if end is not None:
        return end
    size = size_node(captured, node, count)
    return None if size is None else call(node, operator.add, size, first)
