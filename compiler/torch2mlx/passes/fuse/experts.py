"""Matrices that are picked by index, one for each row: the experts of a mixture.

y = bmm(x, index(w, [i]))                                       ->   y = gather_mm(x, w, i)
y = squeeze(bmm(index(w, [i]), unsqueeze(x, -1)), -1)           ->   y = gather_mm(x, w', i)
y = _grouped_mm(x, w, cumsum(histc(i, n, 0, n - 1)))            ->   y = gather_mm(x, w, i)

`gather_mm` takes no negative indices, so these have to be known as positions along an axis.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import GATHER_MM, GROUPED_MM
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Either,
    Is,
    Match,
    Maybe,
    Node,
    Number,
    Tensor,
    cast,
    dtype_of,
    fixed,
)
from torch2mlx.passes.rewrite import arguments, call
from torch2mlx.passes.views import RESHAPES

aten = torch.ops.aten

PRODUCTS = {aten.bmm.default, aten.matmul.default}
GROUPED = {GROUPED_MM, aten._grouped_mm.default}
# Their second result is positions along an axis
SORTS = {aten.sort.default, aten.sort.stable}
SEARCHES = {*SORTS, aten.topk.default, aten.max.dim, aten.min.dim}
POSITIONS = {aten.argmax.default, aten.argmin.default, aten.argsort.default}
ORDERS = {*SORTS, aten.argsort.default}
# What changes the order, the shape or the dtype of indices
MOVES = {*RESHAPES, aten.to.dtype, aten.index.Tensor, aten.transpose.int}

_picked = Node({aten.index.Tensor}, "picked")
_column = Call({aten.unsqueeze.default}, Tensor("row", 2), Is(lambda axis: axis == -1))
_of_columns = Call(
    {aten.squeeze.dim}, Call(PRODUCTS, _picked, _column), Is(lambda axis: axis == -1)
)
_of_rows = Call(PRODUCTS, Tensor("x", ndim=3), _picked)


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    weight, index = _parts(match["picked"])
    if weight is None or index is None:
        raise Declined("")
    if _searched(captured, index) is None:
        raise Declined("the indices may be negative")
    x = match.get("x", match.get("row"))
    sizes = {captured.expr(_first_size(n)) for n in (x, index)}
    if len(sizes) > 1:
        raise Declined("one matrix is multiplied with several")
    if "x" in match.bound:
        return call(root, GATHER_MM, match["x"], weight, index, _is_sorted(index))
    turned = call(root, aten.transpose.int, weight, 1, 2)
    return _of_each_row(root, match["row"], turned, index)


def _of_each_row(
    root: torch.fx.Node, x: torch.fx.Node, weight: torch.fx.Node, index: torch.fx.Node
) -> torch.fx.Node:
    return call(root, GATHER_MM, x, weight, index, _is_sorted(index))


def _first_size(node: Any) -> Any:
    return node.meta["val"].shape[0]


def _parts(picked: Any) -> tuple[Any, Any]:
    """The matrices and the index of what is picked from them, one index for each."""
    given = arguments(picked)
    weight, indices = given["self"], given["indices"]
    index = indices[0] if len(indices) == 1 else None
    if weight.meta["val"].ndim != 3 or index is None:
        return None, None
    value = index.meta["val"]
    is_list = value.ndim == 1 and value.dtype in (torch.int64, torch.int32)
    return (weight, index) if is_list else (None, None)


def _searched(captured: Captured, index: Any) -> int | None:
    """How long the axis is along which the indices are positions; None where they are none."""
    while index.target in MOVES or _is_sorted(index):
        index = index.args[0]
        if index.target in SORTS:
            index = index.args[0]
    found = index
    if found.target is operator.getitem:
        found = index.args[0] if index.args[1] == 1 else index
    if found.target not in (POSITIONS if found is index else SEARCHES):
        return None
    given = arguments(found)
    axis, value = given["dim"], given["self"].meta["val"]
    return fixed(captured, value.shape[axis]) if isinstance(axis, int) else None


def _is_sorted(index: torch.fx.Node) -> bool:
    """Whether an index is the first result of a sort, upwards."""
    source = index.args[0] if index.target is operator.getitem else None
    if not isinstance(source, torch.fx.Node) or index.args[1] != 0:
        return False
    return source.target in SORTS and not arguments(source)["descending"]


def _build_grouped(
    captured: Captured, root: torch.fx.Node, match: Match
) -> torch.fx.Node:
    counted = next(_ends.match(match["ends"], Match(captured)), None)
    if counted is None:
        raise Declined("where the groups end is not counted from indices")
    x, weight, index = match["x"], match["weight"], counted["index"]
    count = fixed(captured, weight.meta["val"].shape[0])
    if count is None or (counted["bins"], counted["last"]) != (count, count - 1):
        raise Declined("the groups are not counted one for each matrix")
    if not _is_sorted(index):
        raise Declined("the rows are not in the order of their groups")
    if _searched(captured, index) != count:
        raise Declined("the indices may be out of range")
    return _of_each_row(root, x, weight, index)


def _build_inverse(
    captured: Captured, root: torch.fx.Node, match: Match
) -> torch.fx.Node:
    """The inverse of a permutation, from a table that is filled with its positions."""
    given = arguments(root)
    indices, values = given["indices"], given["values"]
    order = indices[0] if len(indices) == 1 else None
    if order is None or given["accumulate"] or values.target is not aten.arange.default:
        raise Declined("")
    picked = order.target is operator.getitem and order.args[1] == 1
    if (order.args[0] if picked else order).target not in ORDERS:
        raise Declined("")
    if any(n.meta["val"].ndim != 1 for n in (order, given["self"], values)):
        raise Declined("")
    sizes = {captured.expr(_first_size(n)) for n in (order, given["self"], values)}
    if len(sizes) > 1:
        raise Declined("the table has another size than the permutation")
    if dtype_of(root) != torch.int64:
        raise Declined("the table is not of int64")
    return call(root, aten.argsort.default, order)


_index = Tensor("index", ndim=1)
_counts = Call(
    {aten.histc.default},
    Maybe(cast, _index),
    bins=Number("bins"),
    min=Number(value=0),
    max=Number("last"),
)
_ends = Call(
    {aten.cumsum.default},
    _counts,
    dim=Is(lambda axis: axis == -1),
    dtype=Is(lambda dtype: True),
)

GATHERED_PRODUCT = Fusion(
    "gather_mm",
    frozenset({*PRODUCTS, aten.squeeze.dim}),
    Either(_of_columns, _of_rows),
    _build,
)
GROUPED_ROWS = Fusion(
    "grouped_mm",
    frozenset(GROUPED),
    Call(
        GROUPED,
        Tensor("x", ndim=2),
        Tensor("weight", ndim=3),
        offs=Tensor("ends", ndim=1),
    ),
    _build_grouped,
)
INVERSE_ORDER = Fusion(
    "inverse_order",
    frozenset({aten.index_put.default}),
    Node({aten.index_put.default}),
    _build_inverse,
)
