"""Find the first operator whose MLX form gives something else, without the emitted code.

The captured graph runs on PyTorch, the lowered graph on MLX; every lowered value knows the captured one
that it stands for. What agrees here and not in the generated model is a fault of the later stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import torch
import torch.fx
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_leaves

from torch2mlx.capture import Captured, capture
from torch2mlx.capture.provenance import calling_module, source_line
from torch2mlx.ir.regions import loop
from torch2mlx.lower.interpret import MLXInterpreter
from torch2mlx.verify.compare import Tolerance, deviation
from torch2mlx.verify.result import Operator
from torch2mlx.verify.sides import mlx_inputs, to_mlx

if TYPE_CHECKING:
    from torch2mlx.api import Program

IN_PASSES = (
    "the captured graph, run by PyTorch, differs already: a pass changed its meaning"
)
IN_CAPTURE = "what torch.export captures differs already: the model does something else while it is traced"
IN_LOWERING = "the lowered graph differs: the operator below has a wrong MLX form"
IN_GRAPH = (
    "the lowered graph differs, but in none of the operators that can be compared"
)
IN_LOOPS = "the operators of a model with loops cannot be compared one by one"
IN_EMISSION = "the lowered graph agrees: the emitted code or its weights differ"


class TorchRecorder(torch.fx.Interpreter):
    """Runs a captured graph on PyTorch, and keeps the value of every node.

    Args:
        captured: The model as it was captured.
    """

    def __init__(self, captured: Captured):
        super().__init__(torch.nn.Module(), graph=captured.graph)
        self.values: dict[torch.fx.Node, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


class _MLXRecorder(MLXInterpreter):
    def __init__(self, program: Program):
        weights = program.outlined.weights.values()
        sources = {source for weight in weights for source in weight.sources}
        tensors = program.captured.tensors
        super().__init__(
            program.lowered, {key: to_mlx(tensors[key]) for key in sources}
        )
        self.values: dict[torch.fx.Node, Any] = {}
        self.running: torch.fx.Node | None = None

    def run_node(self, n: torch.fx.Node) -> Any:
        self.running = n
        self.values[n] = super().run_node(n)
        return self.values[n]


def first_wrong_operator(
    program: Program, tensors: Sequence[torch.Tensor], want: Any, tolerance: Tolerance
) -> tuple[str, Operator | None, dict[torch.fx.Node, Any]]:
    """Which stage makes the difference, the operator if it is lowering, and the values in PyTorch.

    The values are those of the captured graph; none where it cannot be run, or is wrong itself.

    Args:
        program: The compiled model.
        tensors: The inputs.
        want: What the PyTorch model returns for them.
        tolerance: How far values may be apart.
    """
    captured = program.captured
    if any(node.target is loop for node in captured.graph.nodes):
        return IN_LOOPS, None, {}
    expected = _only(want, torch.Tensor)
    torch_side = TorchRecorder(captured)
    try:
        outputs = torch_side.run(*torch_inputs(captured, tensors))
        outputs = outputs[: len(outputs) - len(captured.state)]
    except Exception as error:
        why = f"the captured graph, run by PyTorch, fails: {_first_line(error)}"
        return why, None, {}
    if not _agree(
        expected, [to_mlx(t) for t in _only(outputs, torch.Tensor)], tolerance
    ):
        found = _captured_outputs(program, tensors)
        is_captured = found is None or _agree(expected, found, tolerance)
        return IN_PASSES if is_captured else IN_CAPTURE, None, {}
    mlx_side = _MLXRecorder(program)
    try:
        results = mlx_side.run(*mlx_inputs(program, tensors))
        mx.eval(results)
    except Exception as error:
        why = f"the lowered graph fails: {_first_line(error)}"
        running = _operator(mlx_side.running, float("inf"))
        return why, running, torch_side.values
    wrong = _first_difference(torch_side.values, mlx_side.values, tolerance)
    if wrong is not None:
        return IN_LOWERING, wrong, torch_side.values
    agrees = _agree(expected, _only(results, mx.array), tolerance)
    return (IN_EMISSION if agrees else IN_GRAPH), None, torch_side.values


def _captured_outputs(
    program: Program, tensors: Sequence[torch.Tensor]
) -> list[mx.array] | None:
    """What the graph gives as it is captured, before any pass; None where that cannot be had."""
    args, kwargs = program.captured.example
    try:
        captured = capture(program.model, args, kwargs)
        outputs = TorchRecorder(captured).run(*torch_inputs(captured, tensors))
    except Exception:
        return None
    pairs = zip(captured.outputs, outputs, strict=True)
    values = [value for spec, value in pairs if spec.kind is OutputKind.USER_OUTPUT]
    return [to_mlx(value) for value in _only(values, torch.Tensor)]


def _first_difference(
    want: dict[torch.fx.Node, Any],
    got: dict[torch.fx.Node, Any],
    tolerance: Tolerance,
) -> Operator | None:
    for node, value in got.items():
        origin = node.meta.get("origin") if "val" in node.meta else None
        if node.op not in ("call_function", "call_module") or origin is None:
            continue
        original = want.get(origin)
        if isinstance(original, torch.Tensor) and isinstance(value, mx.array):
            error = deviation([original], [value], tolerance)
            if error is not None:
                return _operator(node, error)
    return None


def torch_inputs(
    captured: Captured, tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The arguments of a captured graph: weights and inputs."""
    given = {item.name: t for item, t in zip(captured.inputs, tensors, strict=True)}
    given |= {name: captured.tensors[key] for name, key in captured.weights.items()}
    return [
        given[node.name].detach()
        for node in captured.graph.nodes
        if node.op == "placeholder"
    ]


def _only(values: Any, kind: type) -> list[Any]:
    return [value for value in tree_leaves(values) if isinstance(value, kind)]


def _agree(want: list[torch.Tensor], got: list[mx.array], tolerance: Tolerance) -> bool:
    """Whether both are as many arrays and agree one by one."""
    if len(want) != len(got):
        return False
    pairs = zip(want, got, strict=True)
    return all(deviation([w], [g], tolerance) is None for w, g in pairs)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _operator(node: torch.fx.Node | None, error: float) -> Operator | None:
    origin = node.meta.get("origin") if node is not None else None
    if origin is None:
        return None
    where = calling_module(origin)
    return Operator(str(origin.target), where, source_line(origin), error)
