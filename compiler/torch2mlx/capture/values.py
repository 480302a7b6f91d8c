"""Sizes and numbers that a model reads from the values of arrays: what they are for the example inputs.

torch.export gives each a symbol (`u0`) of which it knows no value, so the captured graph is run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch
import torch.fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import tree_leaves
from torch.utils._sympy.symbol import SymT, symbol_is_type

from torch2mlx.capture.evaluation import evaluating
from torch2mlx.capture.failure import first_line
from torch2mlx.capture.provenance import unsupported
from torch2mlx.errors import CaptureError, UnsupportedError
from torch2mlx.silence import silent

_KINDS = (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)


def is_read(symbol: sympy.Basic) -> bool:
    """Whether a symbol stands for a size or number that is read from values; it may be 0."""
    return isinstance(symbol, sympy.Symbol) and symbol_is_type(symbol, _KINDS)


def read_values(
    model: torch.nn.Module, program: ExportedProgram, args: Any, kwargs: Any
) -> dict[sympy.Symbol, Any]:
    """The symbols that are read from values -> their numbers for the example inputs.

    Raises:
        CaptureError: The graph does not run on the example inputs.
    """
    nodes = program.graph_module.graph.nodes
    if not any(free_unbacked_symbols(node.meta.get("val")) for node in nodes):
        return {}
    recorder = _Recorder(program.graph_module)
    with silent(), evaluating(model):
        torch.manual_seed(0)
        try:
            recorder.run(*_inputs(program, args, kwargs))
        except UnsupportedError:
            raise
        except Exception as error:
            raise CaptureError(
                "some sizes depend on values, which are not known: the captured graph fails on the "
                f"example inputs ({type(error).__name__}: {first_line(error)})"
            ) from error
    return recorder.found


class _Recorder(torch.fx.Interpreter):
    """Runs a captured graph, and notes what its symbols are."""

    def __init__(self, module: torch.fx.GraphModule):
        super().__init__(module)
        self.extra_traceback = False
        self.found: dict[sympy.Symbol, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        value = n.meta.get("val")
        if not _fits(value, result):
            why = "torch.export records a wrong shape for it: write `dim` without a minus sign"
            raise unsupported(n, why)
        for symbol, number in _pairs(value, result):
            self.found.setdefault(symbol, number)
        return result


def _fits(value: Any, result: Any) -> bool:
    """Whether a result has as many axes as it was recorded with; `unique` along a last axis has not."""
    if isinstance(value, list | tuple):
        return all(map(_fits, value, result))
    return not isinstance(value, torch.Tensor) or value.ndim == result.ndim


def _pairs(value: Any, result: Any) -> Iterator[tuple[sympy.Symbol, Any]]:
    if isinstance(value, list | tuple):
        for part, found in zip(value, result, strict=True):
            yield from _pairs(part, found)
    elif isinstance(value, torch.Tensor):
        for size, found in zip(value.shape, result.shape, strict=True):
            yield from _pairs(size, found)
    elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        symbol: Any = value.node.expr
        if symbol.func is sympy.Eq and symbol.args[1] == 1:  # a boolean that is read
            symbol, result = symbol.args[0], int(result)
        if is_read(symbol):
            yield symbol, result


def _inputs(program: ExportedProgram, args: Any, kwargs: Any) -> Iterator[Any]:
    """What the placeholders of a captured graph stand for; the graph may write to buffers and inputs."""
    tensors = {**program.state_dict, **program.constants}
    leaves = iter(tree_leaves((args, kwargs)))
    for spec in program.graph_signature.input_specs:
        is_input = spec.kind is InputKind.USER_INPUT
        value = next(leaves) if is_input else tensors[str(spec.target)]
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if value.is_meta:
                value = torch.zeros((), dtype=value.dtype).expand(value.shape)
            if spec.kind is not InputKind.PARAMETER:
                value = value.clone()
        yield value
