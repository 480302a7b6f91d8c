"""Whether the graph is the model where a size is 1: torch.export takes sizes that vary to be at least 2.

What the author asks of such a size, `if x.shape[0] == 1`, has one answer then, and leaves no guard.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import Any

import sympy
import torch
import torch.fx
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_leaves, tree_map_only

from torch2mlx.capture.asked import Asked
from torch2mlx.capture.captured import Captured
from torch2mlx.capture.conditions import text
from torch2mlx.capture.evaluation import evaluating, tolerance
from torch2mlx.capture.provenance import Frame
from torch2mlx.capture.sizes import label
from torch2mlx.silence import silent

# What chooses between kernels, and not between results
_KERNEL_CHOICES = os.path.join("transformers", "integrations", "sdpa_attention.py")


def note_ones(
    captured: Captured,
    owner: torch.fx.GraphModule,
    model: torch.nn.Module,
    asked: Asked,
) -> None:
    """Note the sizes that must not be 1, since the model would do something else then.

    Args:
        captured: Its `minima` and `notes` are added to.
        owner: The module of its graph, which holds the graphs of its branches.
        model: What was captured; it is run where a size that was asked for is 1.
        asked: What was asked of the sizes.
    """
    hints: dict[Any, Any] = captured.hints
    differing: dict[frozenset[Any], tuple[Any, Frame]] = {}
    for expr, (answer, frame) in asked.answers.items():
        if frame.file.endswith(_KERNEL_CHOICES):
            continue
        found: Any = expr.subs(captured.unified)
        symbols = [s for s in found.free_symbols if captured.minima.get(s, 1) == 1]
        for ones in map(frozenset, (*zip(symbols, strict=True), symbols)):
            if ones <= hints.keys() and ones not in differing:
                at_one = bool(found.subs({**hints, **dict.fromkeys(ones, 1)}))
                if at_one != answer:
                    condition = found if answer else sympy.Not(found)
                    differing[ones] = condition, frame
    for ones, (condition, frame) in differing.items():
        if _is_model(captured, owner, model, ones):
            continue
        if len(ones) == 1:
            (symbol,) = ones
            captured.minima[symbol] = 2
            what = f"{label(captured, symbol)} must be at least 2"
        else:
            captured.conditions.append(condition)
            what = f"`{text(captured, condition)}`"
        captured.notes.append(f"{what}: the model compares sizes at {frame}")


def _is_model(
    captured: Captured,
    owner: torch.fx.GraphModule,
    model: torch.nn.Module,
    ones: Collection[Any],
) -> bool:
    """Whether the graph does what the model does where sizes are 1, as far as the example shows."""
    nodes = {n.name: n for n in captured.graph.nodes if n.op == "placeholder"}
    values = {name: captured.tensors[key] for name, key in captured.weights.items()}
    narrow: dict[int, torch.Tensor] = {}
    for item in captured.inputs:
        value = item.example
        for axis, size in enumerate(nodes[item.name].meta["val"].shape):
            if captured.expr(size) in ones:
                value = value.narrow(axis, 0, 1)
        values[item.name] = narrow[id(item.example)] = value.clone()
    if any(value.is_meta for value in values.values()):
        return False
    # The graph may write to buffers
    for name, key in captured.weights.items():
        if key not in captured.trainable:
            values[name] = values[name].clone()
    # Arguments that are no arrays have placeholders that nothing uses
    arrays = [values.get(name) for name in nodes]
    args, kwargs = tree_map_only(
        torch.Tensor, lambda leaf: narrow.get(id(leaf), leaf), captured.example
    )
    with silent(), evaluating(model), contextlib.suppress(Exception):
        torch.manual_seed(0)
        found = torch.fx.Interpreter(owner, graph=captured.graph).run(*arrays)
        torch.manual_seed(0)
        expected = tree_leaves(model(*args, **kwargs))
        results = [
            result
            for spec, result in zip(captured.outputs, found, strict=False)
            if spec.kind is OutputKind.USER_OUTPUT
        ]
        return all(
            _is_same(one, two) for one, two in zip(results, expected, strict=True)
        )
    return False


def _is_same(one: Any, two: Any) -> bool:
    if not isinstance(two, torch.Tensor):
        return True
    is_exact = not (two.is_floating_point() or two.is_complex())
    if one.shape != two.shape or one.dtype != two.dtype or is_exact:
        return torch.equal(one, two)
    near = tolerance(two.dtype)
    return torch.allclose(one, two, near, near, equal_nan=True)
