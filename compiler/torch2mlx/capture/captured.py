"""What capture yields: the graph of a model, and what is known about its nodes and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
import torch.fx
from torch.utils._pytree import TreeSpec

from torch2mlx.ir.decision import Decision


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
        hints: Symbol -> size for the example inputs.
        unified: Symbol -> the symbol that it is known to equal.
        mutated: Buffers that forward writes to: output index -> state dict key.
        bounds: Symbol -> the largest value for which the graph is right.
        minima: Symbol -> the smallest value for which the graph is right, where that is not 1.
        notes: What the user should know: sizes that are fixed, and why.
        decisions: What the passes decided, for `--explain`.
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
    hints: dict[sympy.Symbol, int]
    unified: dict[sympy.Symbol, sympy.Symbol]
    outputs: list[Any] = field(default_factory=list)
    bounds: dict[sympy.Symbol, int] = field(default_factory=dict)
    minima: dict[sympy.Symbol, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def expr(self, size: Any) -> sympy.Expr:
        """A size as an expression over the symbols of the inputs."""
        found = size.node.expr if hasattr(size, "node") else size
        return sympy.sympify(found).subs(self.unified)

    def size(self, size: Any) -> int:
        """A size for the example inputs."""
        hints: Any = self.hints
        return int(self.expr(size).subs(hints))
