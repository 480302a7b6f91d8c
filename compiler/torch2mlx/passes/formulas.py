"""Buffers that a formula gives become that formula, and parts of them formulas of the part's size.

    p = placeholder: position_ids [1, 512]       ->   s = slice(p, 1, 0, n)   ->   s = unsqueeze(arange(n), 0)
    s = slice(p, 1, 0, n)

Only buffers that no checkpoint holds: the others are whatever will be loaded.
"""

from __future__ import annotations

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import calls_in, source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.affine import Affine, Formulas
from torch2mlx.passes.creation import created, recognised
from torch2mlx.passes.rewrite import replace, tensor_of
from torch2mlx.passes.sizes import input_axis, limit_size
from torch2mlx.passes.views import EXPANSIONS

aten = torch.ops.aten

PARTS = {
    aten.slice.Tensor,
    aten.select.int,
    aten.gather.default,
    aten.index.Tensor,
    aten.index_select.default,
}
OF_EQUAL_ELEMENTS = EXPANSIONS | {aten.to.dtype, aten.repeat.default}


def formulas(captured: Captured) -> bool:
    """Compute what a formula gives instead of storing or slicing it."""
    changed = _buffers(captured)
    known = Formulas(captured)
    for node in list(captured.graph.nodes):
        found = known.of(node) if _is_part(node, known) else None
        new = None if found is None else _created_for(captured, node, found)
        if new is not None:
            _note_bound(captured, node)
            replace(node, new)
            changed = True
    return changed


def _is_part(node: torch.fx.Node, known: Formulas) -> bool:
    if node.target in PARTS:
        return True
    return node.target in OF_EQUAL_ELEMENTS and known.constant(node) is not None


def _created_for(
    captured: Captured, node: torch.fx.Node, found: Affine
) -> torch.fx.Node | None:
    value = node.meta["val"]
    return created(captured, node, found, value.shape, value.dtype)


def is_stored(captured: Captured, key: str) -> bool:
    """Whether a weight's values may change: it trains, forward writes it, or a checkpoint may bring others."""
    kept = (captured.trainable, captured.persistent, captured.state_keys)
    return any(key in keys for keys in kept)


def _buffers(captured: Captured) -> bool:
    changed = False
    for node in list(captured.graph.nodes):
        key = captured.weights.get(node.name) if node.op == "placeholder" else None
        if key is None or is_stored(captured, key) or not node.users:
            continue
        tensor = captured.tensors[key]
        found, first = recognised(tensor), min(node.users)
        new = None
        if found is not None and first.op == "call_function":
            new = created(captured, first, found, tensor.shape, tensor.dtype)
        if new is not None:
            new.meta["buffer"] = key
            _move_out(new, first, key.rpartition(".")[0])
            if tensor.ndim:  # not for each number that the author wrote
                _decide(captured, key, new)
            node.replace_all_uses_with(new)
            changed = True
    return changed


def _move_out(new: torch.fx.Node, first: torch.fx.Node, owner: str) -> None:
    """Compute a buffer where its owner is, not in the submodule that it is given to."""
    stack = first.meta.get("nn_module_stack") or {}
    paths = [call.path for call in calls_in(stack)]
    if owner not in paths or len(paths) != len(stack):
        return
    kept = dict([*stack.items()][: paths.index(owner) + 1])
    made = [new]
    for node in made:
        node.meta["nn_module_stack"] = kept
        made += [n for n in node.all_input_nodes if n.op == "call_function"]


def _decide(captured: Captured, key: str, new: torch.fx.Node) -> None:
    while new.target is aten.unsqueeze.default:
        new = new.all_input_nodes[0]
    name = str(new.target).removeprefix("aten.").partition(".")[0]
    why = f"no checkpoint holds this buffer, and `{name}` gives its values"
    captured.decisions.append(Decision("folded", key, why, source_line(new)))


def _note_bound(captured: Captured, node: torch.fx.Node) -> None:
    """A slice cannot be longer than what is sliced, but its formula can."""
    x = tensor_of(node.args[0])
    if x is None or node.target is not aten.slice.Tensor:
        return
    dim = node.args[1] if len(node.args) > 1 else 0
    assert isinstance(dim, int)
    limit, size = captured.expr(x.shape[dim]), captured.expr(
        node.meta["val"].shape[dim]
    )
    if limit.is_Integer and not size.is_Integer:
        found = input_axis(captured, size)
        what = f"`{found[0].name}.shape[{found[1]}]`" if found else f"the size {size}"
        note = f"{what} is at most {limit}"
        if note not in captured.notes:
            captured.notes.append(note)
        if isinstance(size, sympy.Symbol):
            key = node.args[0].meta.get("buffer")  # type: ignore[union-attr]
            source = None if key is None else (key, dim % x.ndim)
            limit_size(captured, size, int(limit), source)
