"""How long an input may be for the tables that its positions are looked up in.

PyTorch refuses a position beyond the last row of a table; MLX reads past its end.

    embedding(weight [512, 64], arange(n))     ->   n is at most 512
"""

from __future__ import annotations

import math

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import source_line
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.rewrite import tensor_of
from torch2mlx.passes.sizes import input_axis, limit_size

aten = torch.ops.aten

# Lookup -> (place of the index among its arguments, axis of the table or None for an argument `dim`)
LOOKUPS = {
    aten.embedding.default: (1, 0),
    aten.index_select.default: (2, None),
}


def tables(captured: Captured) -> bool:
    """Note the sizes up to which positions that a formula gives are in their tables; no node changes."""
    known = Formulas(captured)
    for node in captured.graph.nodes:
        if node.target in LOOKUPS:
            place, axis = LOOKUPS[node.target]
            _note(captured, known, node, node.args[place], axis)
        elif node.target is aten.index.Tensor:
            for axis, index in enumerate(node.args[1]):
                _note(captured, known, node, index, axis)
    return False


def _note(
    captured: Captured,
    known: Formulas,
    node: torch.fx.Node,
    index: object,
    axis: int | None,
) -> None:
    table, positions = tensor_of(node.args[0]), tensor_of(index)
    found = known.of(index)
    if table is None or positions is None or found is None or found.sign:
        return
    bounds = known.bounds(found, positions.shape)
    dim = node.args[1] if axis is None else axis
    assert isinstance(dim, int)
    size = captured.expr(table.shape[dim])
    if bounds is None or not size.is_Integer or bounds[1].is_Integer:
        return
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
        if place is None or captured.bounds.get(symbol, math.inf) <= limit:
            return
        source = None if needed != symbol or key is None else (key, dim)
        limit_size(captured, symbol, limit, source)
        what = f"`{place[0].name}.shape[{place[1]}]` is at most {limit}"
    captured.notes.append(f"{what}: the rows of a table, {source_line(node)}")
