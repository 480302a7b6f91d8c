"""Assign layouts to a model and run its lowered graph before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from torch.utils import _pytree as pytree

from tests.aten import as_module
from tests.lowering import to_mlx
from torch2mlx.capture import capture
from torch2mlx.layout import Transpose, assign_layouts
from torch2mlx.lower.driver import lower
from torch2mlx.lower.interpret import MLXInterpreter


@dataclass
class Assigned:
    """A lowered graph with layouts.

    Attributes:
        graph: The graph.
        reported: What `assign_layouts` returned.
        transposes: How many transposes are in the graph.
        inputs: The axis order of each input, or None.
        outputs: The axis order of each output, or None.
    """

    graph: torch.fx.Graph
    reported: list[Transpose]
    transposes: int
    inputs: list[Any]
    outputs: list[Any]

    def calls(self) -> list[str]:
        """The names of the functions and layers in order."""
        return [
            n.meta["layer"].cls.__name__ if n.op == "call_module" else n.target.__name__
            for n in self.graph.nodes
            if n.op in ("call_module", "call_function")
        ]


def assigned(
    model: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    io_layout: Any = "mlx",
    passes: Callable[..., Any] | None = None,
    dynamic: Any = "auto",
    tolerance: float = 1e-5,
) -> Assigned:
    """Assign layouts, and compare the graph with PyTorch and with what it was before.

    Args:
        model: A module or a function of tensors.
        args: Its arguments for the capture.
        others: Further arguments, of other sizes.
        io_layout: As `assign_layouts` has it.
        passes: What is applied to the captured graph first.
        dynamic: As `capture` has it.
        tolerance: Relative, and absolute in units of the largest number.
    """
    module = as_module(model)
    captured = capture(module, args, dynamic=dynamic)
    if passes is not None:
        passes(captured)
    program = lower(captured)
    arrays = {key: to_mlx(tensor) for key, tensor in captured.tensors.items()}
    cases = [[to_mlx(x) for x in pytree.tree_leaves(case)] for case in (args, *others)]
    before = [MLXInterpreter(program, arrays).run(*case) for case in cases]
    reported = assign_layouts(program, captured, io_layout)
    graph = program.graph
    graph.lint()
    inputs = [n.meta.get("perm") for n in graph.nodes if n.op == "placeholder"]
    (output,) = (n for n in graph.nodes if n.op == "output")
    result = Assigned(
        graph,
        reported,
        sum(n.target is mx.transpose for n in graph.nodes),
        inputs,
        output.meta["perms"],
    )
    for case, expected in zip(cases, before, strict=True):
        given = [_ordered(x, p) for x, p in zip(case, inputs, strict=True)]
        values = _Recording(program, arrays)
        for want, have, perm in zip(
            expected, values.run(*given), result.outputs, strict=True
        ):
            _compare(_ordered(want, perm), have, tolerance)
        if case is cases[0]:
            values.check_hints()
    with torch.no_grad():
        original = pytree.tree_leaves(module(*args))
    for want, have in zip(original, before[0], strict=True):
        _compare(to_mlx(want), have, 10 * tolerance)
    return result


class _Recording(MLXInterpreter):
    """An interpreter that keeps the shapes of what it computes."""

    def run(self, *args: Any) -> Any:
        self.shapes: dict[torch.fx.Node, Any] = {}
        return super().run(*args)

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, mx.array):
            self.shapes[n] = value.shape
        return value

    def check_hints(self) -> None:
        """The hint of every array has its shape, and so has `val` in the order that `perm` says."""
        for node, shape in self.shapes.items():
            assert tuple(node.meta["hint"].shape) == tuple(shape), node.format_node()
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and all(
                isinstance(s, int) for s in value.shape
            ):
                perm = node.meta.get("perm") or range(value.ndim)
                assert tuple(value.shape[a] for a in perm) == tuple(
                    shape
                ), node.format_node()


def _ordered(x: mx.array, perm: Any) -> mx.array:
    return x if perm is None else x.transpose(perm)


def _compare(want: mx.array, have: mx.array, tolerance: float) -> None:
    assert want.shape == have.shape
    expected, actual = np.array(want), np.array(have)
    scale = (
        float(np.abs(expected).max(initial=1e-6)) if expected.dtype.kind == "f" else 1.0
    )
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)
