"""`torch.compile(model, backend="mlx")`: the graphs that Dynamo captures, run by MLX.

A graph runs in PyTorch instead, with a warning that says why, where MLX would not give the same: it
has operators that are not mapped, needs gradients, draws random numbers, computes in float64, or
writes to its inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import torch2mlx
from torch2mlx.api import Program
from torch2mlx.errors import Torch2MLXError
from torch2mlx.silence import silent
from torch2mlx.verify.compare import mlx_to_numpy
from torch2mlx.verify.sides import run_mlx

WIDE = (torch.float64, torch.complex128)


class RunsInPyTorch(Exception):
    """Why a graph does not run in MLX."""


def mlx_backend(
    graph: torch.fx.GraphModule, example: Sequence[Any]
) -> Callable[..., Sequence[Any]]:
    """A graph of Dynamo as a function that MLX computes.

    It is compiled at the first call, and once more for each further set of input sizes.

    Args:
        graph: The captured graph; its inputs are the arrays, the weights and the sizes it needs.
        example: One value for each input.
    """
    return _Graph(graph, [_is_weight(value) for value in example])


def _is_weight(value: Any) -> bool:
    # Dynamo marks the parameters and buffers of the modules that it inlines
    is_static = getattr(value, "_dynamo_static_input_type", None) is not None
    return isinstance(value, nn.Parameter) or (
        isinstance(value, torch.Tensor) and is_static
    )


class _Graph:
    """One graph: in MLX as often as possible."""

    def __init__(self, graph: torch.fx.GraphModule, weights: list[bool]):
        self.graph = graph
        self.weights = weights
        self.compiled: dict[Any, _Compiled | RunsInPyTorch] = {}
        self.warned: set[str] = set()

    def __call__(self, *values: Any) -> Sequence[Any]:
        try:
            return self._in_mlx(values)
        except RunsInPyTorch as why:
            if str(why) not in self.warned:
                self.warned.add(str(why))
                warnings.warn(
                    f"torch2mlx: a graph runs in PyTorch: {why}", stacklevel=2
                )
            return self.graph(*values)

    def _in_mlx(self, values: tuple[Any, ...]) -> Sequence[Any]:
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise RunsInPyTorch("gradients are needed; call it under torch.no_grad()")
        key = tuple(map(_key, values, self.weights))
        if key not in self.compiled:
            try:
                bound = _Bound(self.graph, values, self.weights)
                self.compiled[key] = _Compiled(bound, bound.inputs(values))
            except RunsInPyTorch as why:
                self.compiled[key] = why
        found = self.compiled[key]
        if isinstance(found, RunsInPyTorch):
            raise found
        return found(values)


def _key(value: Any, is_weight: bool) -> Any:
    # Of one graph for several modules each gets its own, so that weights are converted once
    if is_weight:
        return id(value), value.shape, value.dtype
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype, value.device
    return value


class _Bound(nn.Module):
    """A graph whose weights are buffers of its own, and whose sizes are constants."""

    def __init__(
        self, graph: torch.fx.GraphModule, values: Sequence[Any], weights: list[bool]
    ):
        super().__init__()
        self.graph = graph
        self.held: dict[int, str] = {}
        self.constants: dict[int, Any] = {}
        for i, (value, is_weight) in enumerate(zip(values, weights, strict=True)):
            if is_weight:
                self.held[i] = f"weight_{i}"
                self.register_buffer(self.held[i], value.detach().clone())
            elif not isinstance(value, torch.Tensor):
                self.constants[i] = value
        self.arity = len(values)
        self.eval()

    def inputs(self, values: Sequence[Any]) -> list[torch.Tensor]:
        """What of a call's values is neither a weight nor a constant."""
        known = self.held.keys() | self.constants.keys()
        return [value for i, value in enumerate(values) if i not in known]

    def update(self, values: Sequence[Any]) -> bool:
        """Take over the weights of a call; whether any of them has changed.

        They are compared one by one: no counter of PyTorch's knows of `p.data.mul_(2)`.
        """
        changed = False
        for i, name in self.held.items():
            own = self.get_buffer(name)
            if not torch.equal(own, values[i]):
                own.copy_(values[i].detach())
                changed = True
        return changed

    def forward(self, *inputs: torch.Tensor) -> Any:
        given = iter(inputs)
        return self.graph(*(self._value(i, given) for i in range(self.arity)))

    def _value(self, i: int, given: Iterator[torch.Tensor]) -> Any:
        if i in self.held:
            return self.get_buffer(self.held[i])
        return self.constants[i] if i in self.constants else next(given)


def _check(program: Program) -> None:
    captured = program.captured
    if captured.state:
        raise RunsInPyTorch("it writes to its inputs or buffers")
    for node in captured.graph.nodes:
        if _is_random(node):
            raise RunsInPyTorch(f"{node.target} draws random numbers")
        for value in tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.Tensor) and value.dtype in WIDE:
                raise RunsInPyTorch(f"it computes in {value.dtype}")


def _is_random(node: torch.fx.Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    schema: Any = getattr(node.target, "_schema")  # noqa: B009
    given = dict(zip([a.name for a in schema.arguments], node.args, strict=False))
    given = {a.name: a.default_value for a in schema.arguments} | given | node.kwargs
    # Dropout outside of training, or of nothing
    is_off = any(given.get(name) is False for name in ("train", "training"))
    return not is_off and all(given.get(name) != 0 for name in ("p", "dropout_p"))


@dataclass
class _Result:
    """One output: what PyTorch's own would be."""

    dtype: torch.dtype
    device: torch.device


class _Compiled:
    """A graph for one set of input sizes and weights."""

    def __init__(self, bound: _Bound, inputs: Sequence[torch.Tensor]):
        self.bound = bound
        self.program = _compile(bound, inputs)
        self.model = self.program.load()

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        if self.bound.update(values):
            self.model = self.program.load()
        found = run_mlx(self.model, self.program, self.bound.inputs(values))
        leaves = tree_leaves(found, is_leaf=lambda value: value is None)
        return [
            _to_torch(value, result) if isinstance(value, mx.array) else value
            for value, result in zip(leaves, self._results(), strict=True)
        ]

    def _results(self) -> list[_Result | None]:
        output = next(iter(reversed(self.program.captured.graph.nodes)))
        values = [getattr(node, "meta", {}).get("val") for node in output.args[0]]
        return [
            (
                _Result(value.dtype, value.device)
                if isinstance(value, torch.Tensor)
                else None
            )
            for value in values
        ]


def _compile(bound: _Bound, inputs: Sequence[torch.Tensor]) -> Program:
    try:
        with silent(), torch.no_grad():
            program = torch2mlx.compile(
                bound, tuple(inputs), dynamic=False, io_layout="torch", name="graph"
            )
    except Torch2MLXError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise RunsInPyTorch(" ".join(lines[:2])) from error
    _check(program)
    return program


def _to_torch(array: mx.array, result: _Result | None) -> torch.Tensor:
    tensor = torch.from_numpy(mlx_to_numpy(array).copy())
    return tensor if result is None else tensor.to(result.device, result.dtype)
