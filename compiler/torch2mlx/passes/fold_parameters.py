"""Compute what depends on weights alone once, when they are converted: for inference alone.

    bias = permute(view(index(table, [indices]), [49, 49, -1]), [2, 0, 1]); y = add(x, bias)
    y = add(x, relative_position_bias)

The new arrays are not computed here: the weight plan says how, so that every checkpoint can be converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.ir.layer import Weight
from torch2mlx.passes.constants import free_key
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.parameter_calls import VIEWS, Calls, fits
from torch2mlx.passes.rewrite import arguments, call, name_as, same_shape, tensor_of

aten = torch.ops.aten
Node = torch.fx.Node

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
TRANSPOSED = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
LAYERS = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}
# What is larger than this, and than its sources by this factor, is computed each time.
LARGE, GROWTH = 2**24, 4


def fold_parameters(captured: Captured) -> bool:
    """Replace the last call of each expression over weights by an array of its own."""
    join_terms(captured)
    drop_dead_code(captured)
    constant = over_weights(captured)
    found = [node for node in captured.graph.nodes if _is_last(node, constant)]
    made = {node: _weight(captured, node) for node in found}
    kept = {
        key_of(captured, node)
        for node in constant
        if node.op == "placeholder" and not constant.issuperset(node.users)
    }
    for node, weight in made.items():
        if weight is not None:
            _store(captured, node, weight, kept)
    return any(weight is not None for weight in made.values())


def over_weights(captured: Captured) -> set[Node]:
    """The weights that forward does not write, and the calls that depend on nothing else."""
    found: set[Node] = set()
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            key = key_of(captured, node)
            if key is not None and key not in captured.state_keys:
                found.add(node)
        elif found.issuperset(node.all_input_nodes) and fits(node):
            found.add(node)
    return found


def key_of(captured: Captured, node: object) -> str | None:
    """The state dict key of a stored weight, the first one where it has several; None for others."""
    if not isinstance(node, Node) or node.name in captured.folded:
        return None
    key = captured.weights.get(node.name)
    return key if key is None else captured.aliases.get(key, key)


def store_as(node: Node, key: str, owner: str | None = None) -> Node:
    """Let what `node` computes be an array `key`; of the layer at `owner`, where that is known."""
    node.meta["stored_as"] = (key, owner)
    return node


def _is_last(node: Node, constant: set[Node]) -> bool:
    if node not in constant or node.op == "placeholder":
        return False
    value = tensor_of(node)
    if value is None or not value.is_floating_point():
        return False
    if "stored_as" in node.meta:
        return True
    is_used = any(user not in constant for user in node.users)
    return is_used and any(n.target not in VIEWS for n in _calls(node, deep=False))


def _calls(node: Node, deep: bool = True) -> Iterator[Node]:
    """The calls that a node depends on, itself first; up to arrays that are stored unless `deep`."""
    seen, waiting = {node}, [node]
    for current in waiting:
        if current.op == "placeholder":
            continue
        if current is not node and not deep and "stored_as" in current.meta:
            continue
        yield current
        new = [n for n in current.all_input_nodes if n not in seen]
        seen.update(new)
        waiting.extend(new)


def _weight(captured: Captured, node: Node) -> Weight | None:
    """How the plan computes `node`; None where its array would be too large or of another dtype."""
    steps = sorted(_calls(node))
    operands = {operand for step in steps for operand in step.all_input_nodes}
    sources = sorted(n for n in operands if n.op == "placeholder")
    calls = Calls(sources)
    for step in steps:
        calls.add(step)
    dtypes = [n.meta["val"].dtype for n in sources]
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    size = _bytes(node)
    too_large = size > LARGE and size > GROWTH * sum(map(_bytes, sources))
    if not floats or floats[0] != node.meta["val"].dtype or too_large:
        return None
    keys = tuple(key_of(captured, source) or "" for source in sources)
    return Weight(keys, expression=calls.expression)


def _bytes(node: Node) -> int:
    value = node.meta["val"]
    return value.numel() * value.element_size()


def _place(captured: Captured, node: Node) -> tuple[str, str | None] | None:
    """The key of the array and the layer that it belongs to, if it does."""
    if "stored_as" in node.meta:
        return node.meta["stored_as"]
    layer = next(iter(node.users))
    if len(node.users) > 1 or layer.target not in LAYERS:
        return None
    weight, calls = arguments(layer)["weight"], module_calls(layer)
    if weight is node:
        owner = calls[-1].path if calls else None
        name = "weight"
    elif weight.name in captured.folded:
        owner, name = captured.folded[weight.name].owner, "bias"
    else:
        owner, _, attribute = (key_of(captured, weight) or "").rpartition(".")
        alone = attribute == "weight" and len(weight.users) == 1
        owner, name = owner if alone else None, "bias"
    return None if owner is None else (f"{owner}.{name}" if owner else name, owner)


def _store(
    captured: Captured, node: Node, weight: Weight, kept: set[str | None]
) -> None:
    key, owner = _place(captured, node) or ("", None)
    others = (
        captured.folded[n]
        for n, k in captured.weights.items()
        if k == key and n in captured.folded
    )
    weight = replace(weight, owner=owner)
    if not key or key in kept or any(other != weight for other in others):
        key = free_key(captured, node)
        weight = replace(weight, owner=None)
    with captured.graph.inserting_before(next(iter(captured.graph.nodes))):
        new = captured.graph.placeholder(f"f_{key.replace('.', '_')}")
    new.meta["val"] = node.meta["val"]
    name_as(new, node)
    captured.weights[new.name] = key
    captured.folded[new.name] = weight
    if "stored_as" not in node.meta:
        why = f"it is computed from {', '.join(weight.sources)} when the weights are converted"
        captured.decisions.append(Decision("folded", key, why, source_line(node)))
    node.replace_all_uses_with(new)


def join_terms(captured: Captured) -> None:
    """Add weights to each other first, also past a view of leading axes along which they are all alike.

    add(view(add(x, p), shape), q)     ->     add(view(x, shape), add(p, q))
    """
    constant = over_weights(captured)
    for node in list(captured.graph.nodes):
        if node.target is not aten.add.Tensor or node in constant:
            continue
        outer = _term(captured, node, constant)
        if outer is None:
            continue
        x, term = outer
        view = x if x.target in (aten.view.default, aten.reshape.default) else None
        inner = x if view is None else view.args[0]
        is_sum = isinstance(inner, Node) and inner.target is aten.add.Tensor
        if not is_sum or len(x.users) != 1 or len(inner.users) != 1:  # type: ignore[union-attr]
            continue
        parts = _term(captured, inner, constant)  # type: ignore[arg-type]
        shape = parts and _seen_through(captured, view, parts[1])
        if parts is None or shape is None:
            continue
        first, own = parts
        if tuple(own.meta["val"].shape) != shape:
            own = call(node, aten.view.default, own, list(shape), origin=own)
        total = call(node, aten.add.Tensor, own, term, origin=own)
        if view is not None:
            first = call(node, aten.view.default, first, view.args[1], origin=view)
        node.args = (first, total)
        constant.update((own, total))


def _term(
    captured: Captured, node: Node, constant: set[Node]
) -> tuple[Node, Node] | None:
    """What a sum adds to what, if exactly that is made of weights alone, and the shape is the other's."""
    given = arguments(node)
    terms = [given["self"], given["other"]]
    if given["alpha"] != 1 or not all(isinstance(t, Node) for t in terms):
        return None
    own = [t for t in terms if t in constant]
    other = [t for t in terms if t not in constant]
    if len(own) != 1 or tensor_of(other[0]) is None or tensor_of(own[0]) is None:
        return None
    fits_whole = same_shape(captured, other[0].meta["val"], node.meta["val"])
    return (other[0], own[0]) if fits_whole else None


def _seen_through(
    captured: Captured, view: Node | None, term: Node
) -> tuple[int, ...] | None:
    """The shape in which a term is added behind the view, if that leaves all its axes whole."""
    shape = tuple(term.meta["val"].shape)
    if view is None:
        return shape
    before, after = (
        [captured.expr(size) for size in node.meta["val"].shape]
        for node in (view.all_input_nodes[0], view)
    )
    while shape and shape[0] == 1:
        shape = shape[1:]
    if not shape or len(shape) >= len(before):
        return None
    kept = after[-len(shape) :] == before[-len(shape) :]
    return (*(1,) * (len(after) - len(shape)), *shape) if kept else None
