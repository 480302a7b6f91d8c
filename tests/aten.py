"""Run a captured graph with PyTorch, before or after passes, and look at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from torch2mlx.capture import Captured, capture
from torch2mlx.passes.rewrite import infer

Pass = Callable[[Captured], bool]


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def as_module(model: torch.nn.Module | Callable[..., Any]) -> torch.nn.Module:
    """A module in evaluation mode that calls `model`."""
    module = model if isinstance(model, torch.nn.Module) else _Function(model)
    return module.eval()


def evaluate(captured: Captured, *inputs: torch.Tensor) -> list[Any]:
    """The outputs of a captured graph for some inputs, without what its buffers hold afterwards."""
    values = iter(inputs)
    given = []
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            key = captured.weights.get(node.name)
            given.append(next(values) if key is None else captured.tensors[key])
    owner = captured.graph.owning_module or torch.nn.Module()
    interpreter = torch.fx.Interpreter(owner, graph=captured.graph)
    with torch.no_grad():
        outputs = list(interpreter.run(*given))
    return outputs[: len(outputs) - len(captured.state)]


def check(
    passes: Sequence[Pass],
    model: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    tolerance: float = 0.0,
    **options: Any,
) -> Captured:
    """Capture `model`, apply `passes` and compare the graph with PyTorch, bit for bit.

    Args:
        passes: What is tested.
        model: A module or a function of tensors.
        args: Its arguments for the capture.
        others: Further arguments, of other sizes.
        **options: Of `capture`.

    Raises:
        AssertionError: A number, or what is recorded about a node, is wrong.
    """
    module = as_module(model)
    captured = capture(module, args, **options)
    for transform in passes:
        transform(captured)
    captured.graph.lint()
    check_values(captured)
    for case in (args, *others):
        with torch.no_grad():
            expected = pytree.tree_leaves(module(*pytree.tree_map(_copy, case)))
        inputs = [_copy(a) for a in pytree.tree_leaves(case) if torch.is_tensor(a)]
        for want, have in zip(expected, evaluate(captured, *inputs), strict=True):
            torch.testing.assert_close(
                have, want, rtol=tolerance, atol=tolerance, equal_nan=True
            )
    return captured


def _copy(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def check_values(captured: Captured) -> None:
    """What each node says about its value is what its arguments give."""
    for node in captured.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, FakeTensor):
            found = infer(node)
            sizes = [[captured.size(s) for s in v.shape] for v in (value, found)]
            assert sizes[0] == sizes[1], node.format_node()
            assert value.dtype == found.dtype, node.format_node()


def ops(captured: Captured) -> Counter[str]:
    """How often each operator is in the graph, without overload names."""
    return Counter(
        getattr(node.target, "__name__", str(node.target)).partition(".")[0]
        for node in captured.graph.nodes
        if node.op == "call_function"
    )
