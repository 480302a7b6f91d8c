"""Compute once what depends on no input and on no weight that may change.

    f = exp(mul(arange(8), -1.5)); y = mul(x, f)     ->     y = mul(x, frequencies)

The result is a formula where it has one, else a new array that is stored with the weights, named after
the author's variable.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import (
    assigned_names,
    frames_in_class,
    module_calls,
    source_line,
)
from torch2mlx.ir.decision import Decision
from torch2mlx.ir.regions import ITERATIONS, loop
from torch2mlx.passes.creation import created, recognised
from torch2mlx.passes.formulas import is_stored
from torch2mlx.passes.rewrite import fake_mode, name_as, replace
from torch2mlx.passes.views import DROPOUTS, EXPANSIONS, PERMUTES, RESHAPES

aten = torch.ops.aten

MEGABYTE = 2**20
GROWTH = 4
# Formulas of at most this many calls stay as they are: `tril(ones([n, n]))[None]`.
SHORT = 3
CREATIONS = {
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.eye.default,
    aten.full.default,
    aten.ones.default,
    aten.zeros.default,
}
VIEWS = RESHAPES | PERMUTES | EXPANSIONS
FORMULA_STEPS = CREATIONS | {
    aten.tril.default,
    aten.triu.default,
    aten.unsqueeze.default,
}


def fold_constants(captured: Captured) -> bool:
    """Replace the last call of each constant expression by its result."""
    constant = _constant_nodes(captured)
    results: dict[torch.fx.Node, torch.Tensor] = {}
    changed = False
    for node in list(captured.graph.nodes):
        last = node in constant and any(user not in constant for user in node.users)
        if (
            not last
            or node.op == "placeholder"
            or not isinstance(node.meta["val"], torch.Tensor)
        ):
            continue
        if _is_short_formula(node) or _is_view(node):
            continue
        value = _result(captured, node, results)
        if _grows_too_much(captured, node, value):
            continue
        replace(node, _formula(captured, node, value) or stored(captured, node, value))
        changed = True
    return changed


def _constant_nodes(captured: Captured) -> set[torch.fx.Node]:
    """Weights that never change, and the calls that depend on nothing else."""
    found: set[torch.fx.Node] = set()
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            key = captured.weights.get(node.name)
            if key is None or is_stored(captured, key):
                continue
            if captured.tensors[key].device.type != "meta":
                found.add(node)
        elif found.issuperset(node.all_input_nodes) and _is_pure(node):
            found.add(node)
    return found


def _is_pure(node: torch.fx.Node) -> bool:
    """Whether it is a call that gives the same result each time, of sizes that are known."""
    if node.op != "call_function" or node.target in {loop, *ITERATIONS}:
        return False
    if isinstance(node.target, OpOverload):
        schema, tags = node.target._schema, node.target.tags
        if schema.is_mutable or torch.Tag.nondeterministic_seeded in tags:
            return False
        if node.target.namespace != "aten" or node.target in DROPOUTS:
            return False
    values = node.meta.get("val")
    return all(
        isinstance(value, torch.Tensor)
        and value.device.type != "meta"
        and all(isinstance(size, int) for size in value.shape)
        for value in (values if isinstance(values, list | tuple) else [values])
    )


def _is_short_formula(node: torch.fx.Node) -> bool:
    count = 0
    for call in _expression(node):
        if call.target not in FORMULA_STEPS:
            return False
        count += 1
    return count <= SHORT


def _is_view(node: torch.fx.Node) -> bool:
    """Whether it is a weight, only seen in another shape."""
    return all(n.op == "placeholder" or n.target in VIEWS for n in _expression(node))


def _expression(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """A node and all that it depends on."""
    seen, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        yield current
        new = [n for n in current.all_input_nodes if n not in seen]
        seen.update(new)
        waiting.extend(new)


def _result(
    captured: Captured, node: torch.fx.Node, results: dict[torch.fx.Node, Any]
) -> torch.Tensor:
    needed = set(_expression(node))
    for step in captured.graph.nodes:
        if step not in needed or step in results:
            continue
        if step.op == "placeholder":
            results[step] = captured.tensors[captured.weights[step.name]].detach()
        else:
            args, kwargs = map_arg((step.args, step.kwargs), results.__getitem__)  # type: ignore[misc]
            with torch.no_grad():
                results[step] = step.target(*args, **kwargs)  # type: ignore[operator]
        if step is node:
            break
    return results[node]


def _grows_too_much(
    captured: Captured, node: torch.fx.Node, value: torch.Tensor
) -> bool:
    sources = (n for n in _expression(node) if n.op == "placeholder")
    size = sum(captured.tensors[captured.weights[n.name]].nbytes for n in sources)
    return value.nbytes > MEGABYTE and value.nbytes > GROWTH * size


def _formula(
    captured: Captured, node: torch.fx.Node, value: torch.Tensor
) -> torch.fx.Node | None:
    found = recognised(value)
    return (
        None
        if found is None
        else created(captured, node, found, value.shape, value.dtype)
    )


def stored(
    captured: Captured, node: torch.fx.Node, value: torch.Tensor, name: str = ""
) -> torch.fx.Node:
    """A new placeholder for `value`, an array of the module that computes `node`.

    Args:
        captured: The graph.
        node: What the value stands for.
        value: The elements.
        name: The array's name; that of the author's variable unless it is given.
    """
    key = free_key(captured, node, name)
    captured.tensors[key] = value.contiguous().clone()
    with captured.graph.inserting_before(next(iter(captured.graph.nodes))):
        new = captured.graph.placeholder(f"c_{key.replace('.', '_').lower()}")
    new.meta["val"] = fake_mode(captured.graph).from_tensor(value, static_shapes=True)
    name_as(new, node)
    captured.weights[new.name] = key
    why = f"it depends on no input: its {tuple(value.shape)} values are stored"
    captured.decisions.append(Decision("folded", key, why, source_line(node)))
    return new


def free_key(captured: Captured, node: torch.fx.Node, name: str = "") -> str:
    """A state dict key that nothing has yet, in the module that computed the node."""
    calls = module_calls(node)
    path = calls[-1].path if calls else ""
    frames = frames_in_class(node, captured.classes.get(path))
    names = assigned_names(frames[0]) if frames else ()
    if not name:
        name = names[0] if len(names) == 1 and names[0] else "constant"
    if keyword.iskeyword(name) or name.startswith("_"):
        name = "constant"
    taken = {*captured.tensors, *captured.classes, *captured.weights.values()}
    prefix = f"{path}.{name}" if path else name
    key, count = prefix, 1
    while key in taken:
        count += 1
        key = f"{prefix}_{count}"
    return key
