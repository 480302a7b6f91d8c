"""What capture yields: the graph of a model, and what is known about its nodes and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
import torch.fx
from torch.utils._pytree import TreeSpec

from torch2mlx.capture.opaque import ModuleCall
from torch2mlx.errors import CaptureError
from torch2mlx.ir.decision import Decision
from torch2mlx.ir.layer import Weight


@dataclass(frozen=True)
class Input:
    """One array input of the model.

    Attributes:
        name: The placeholder's name in the captured graph.
        argument: The parameter of `forward` that it belongs to.
        path: How to get from that argument to the array: indices and keys.
        example: The example tensor.
    """

    name: str
    argument: str
    path: tuple[Any, ...]
    example: torch.Tensor


@dataclass
class Captured:
    """A model as one graph of ATen operators.

    Attributes:
        graph: The ATen graph; its placeholders are weights and inputs.
        model_class: Qualified class name of the model.
        classes: Module path -> class, for all modules.
        modules: Module path -> module, empty for a program that came without its modules.
        weights: Placeholder name -> state dict key, for parameters, buffers and constants.
        tensors: State dict key -> tensor.
        aliases: State dict key -> the key that the same tensor has first.
        trainable: State dict keys of parameters.
        persistent: State dict keys that a checkpoint holds.
        inputs: The array inputs in order.
        arguments: Parameters of `forward` in call order, with the constant of those that hold no array.
        example: The example arguments and keyword arguments.
        out_spec: Pytree of the outputs.
        hints: Symbol -> size, or number that is read from values, for the example inputs.
        unified: Symbol -> the symbol that it is known to equal.
        state: Placeholder of each buffer and input that forward writes to -> the module stack of the last
            write. The graph's last outputs are what they hold afterwards, in this order.
        bounds: Symbol -> the largest value for which the graph is right.
        lengths: Symbol -> the buffer, and its axis, whose size is the largest value.
        minima: Symbol -> the smallest value for which the graph is right, where that is not 1.
        conditions: Further comparisons of the input's sizes that hold wherever the graph is right.
        equal: Symbols of sizes that the author compares: wherever they occur, the inputs must have one size.
        notes: What the user should know: sizes that are fixed, and why.
        decisions: What the passes decided, for `--explain`.
        folded: Placeholder name -> how its array is computed from the tensors when the file is written.
        module_calls: The calls of modules that are one node each.
    """

    graph: torch.fx.Graph
    model_class: str
    classes: dict[str, type]
    modules: dict[str, torch.nn.Module]
    weights: dict[str, str]
    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    trainable: set[str]
    persistent: set[str]
    inputs: list[Input]
    arguments: dict[str, Any]
    example: tuple[tuple[Any, ...], dict[str, Any]]
    out_spec: TreeSpec
    hints: dict[sympy.Symbol, Any]
    unified: dict[sympy.Symbol, sympy.Symbol]
    outputs: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    bounds: dict[sympy.Symbol, int] = field(default_factory=dict)
    lengths: dict[sympy.Symbol, tuple[str, int]] = field(default_factory=dict)
    minima: dict[sympy.Symbol, int] = field(default_factory=dict)
    conditions: list[Any] = field(default_factory=list)
    equal: list[sympy.Symbol] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    folded: dict[str, Weight] = field(default_factory=dict)
    module_calls: list[ModuleCall] = field(default_factory=list)

    @property
    def state_keys(self) -> set[str]:
        """State dict keys of the buffers that forward writes to."""
        return {self.weights[name] for name in self.state if name in self.weights}

    def expr(self, size: Any) -> sympy.Expr:
        """A size as an expression over the symbols of the inputs."""
        found = size.node.expr if hasattr(size, "node") else size
        return sympy.sympify(found).subs(self.unified)

    def size(self, size: Any) -> int:
        """A size for the example inputs."""
        return int(self._example(size))

    def number(self, value: Any) -> bool | int | float:
        """A size or symbolic number for the example inputs."""
        kinds: dict[type, Any] = {torch.SymBool: bool, torch.SymFloat: float}
        return kinds.get(type(value), int)(self._example(value))

    def _example(self, value: Any) -> Any:
        hints: Any = self.hints
        found = self.expr(value).subs(hints)
        if found.free_symbols:
            raise CaptureError(
                f"the size {found} depends on values, and is not known for the example inputs"
            )
        return found
