"""Where NaN or infinity begins: the first operator that makes it from numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import calling_module, source_line
from torch2mlx.ir.regions import ITERATIONS
from torch2mlx.verify.operators import TorchRecorder, torch_inputs
from torch2mlx.verify.result import NotFinite

KINDS: tuple[tuple[str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("NaN", torch.isnan),
    ("infinity", torch.isinf),
)


def first_not_finite(
    captured: Captured, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> NotFinite | None:
    """Where NaN among the outputs begins, or infinity if there is no NaN.

    Args:
        captured: The model as it was captured.
        tensors: The inputs.
        outputs: What the model returns for them.
    """
    wrong = [
        (name, test) for name, test in KINDS if any(_has(y, test) for y in outputs)
    ]
    if not wrong or any(node.target in ITERATIONS for node in captured.graph.nodes):
        return None
    what, test = wrong[0]
    recorder = TorchRecorder(captured)
    recorder.run(*torch_inputs(captured, tensors))
    for node, value in recorder.values.items():
        made = node.op == "call_function" and _has(value, test)
        if made and not any(
            _has(recorder.values.get(n), test) for n in node.all_input_nodes
        ):
            where = calling_module(node)
            return NotFinite(what, str(node.target), where, source_line(node))
    return NotFinite(what, "it is in the inputs or weights", "the model", "")


def _has(value: object, test: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    return bool(test(value).any())
