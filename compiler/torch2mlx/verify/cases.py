"""Inputs to compare on: the example, other sizes, padded masks; random values like the example's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from torch2mlx.capture import Captured, Input

Sizes = dict[sympy.Symbol, int]

# What other sizes than the batch grow by: one, else a multiple of what patches and strides divide
STEPS = (1, 32)


@dataclass(frozen=True)
class Inputs:
    """One set of inputs: what they are, and the tensors in order."""

    name: str
    tensors: list[torch.Tensor]


def example(captured: Captured, name: str = "example inputs") -> Inputs:
    """The example inputs."""
    return Inputs(name, [item.example for item in captured.inputs])


def further(captured: Captured, seed: int) -> list[Iterable[Inputs]]:
    """Another batch size, other values of the other sizes that may vary, and padded masks.

    Args:
        captured: Its inputs and their symbolic sizes.
        seed: Of the random values; half of the inputs have the next one.

    Returns:
        Choices: of each, the first inputs that PyTorch accepts are meant.
    """
    shapes = _shapes(captured)
    free = _free_symbols(captured, shapes)
    batch = [s for s in free if any(shape and shape[0] == s for shape in shapes)]
    choices: list[Iterable[Inputs]] = []
    if sizes := _grown(captured, batch, [1] * len(batch)):
        size = ", ".join(str(size) for size in dict.fromkeys(sizes.values()))
        tensors = _drawn(captured, shapes, sizes, seed)
        choices.append([Inputs(f"batch size {size}", tensors)])
    if batch and all(captured.minima.get(symbol, 1) == 1 for symbol in batch):
        # The capture takes sizes that vary to be larger, and models are mostly run on one
        one = _drawn(captured, shapes, dict.fromkeys(batch, 1), seed + 1)
        choices.append([Inputs("batch size 1", one)])
    variants = _variants(captured, [s for s in free if s not in batch])
    if variants:
        choices.append(_resized(captured, shapes, v, seed + 1) for v in variants)
    if not choices and captured.inputs:
        for number, name in enumerate(("random inputs", "other random inputs")):
            choices.append([Inputs(name, _drawn(captured, shapes, {}, seed + number))])
    padded = _padded(captured)
    return [*choices, [padded]] if padded else choices


def _free_symbols(
    captured: Captured, shapes: list[list[sympy.Expr]]
) -> list[sympy.Symbol]:
    """The symbols of the sizes that may vary, in the order of the inputs and their axes."""
    used = {s for shape in shapes for expr in shape for s in expr.free_symbols}
    return [symbol for symbol in captured.hints if symbol in used]


def _variants(captured: Captured, symbols: list[sympy.Symbol]) -> list[Sizes]:
    """Other values of all symbols, else of one; unlike ones first: they show axes that are mixed up."""
    variants: list[Sizes] = []
    for step in STEPS:
        unlike = [step * (1 + i) for i in range(len(symbols))]
        variants.append(_grown(captured, symbols, unlike))
        variants.append(_grown(captured, symbols, [step] * len(symbols)))
    variants += [_grown(captured, [s], [step]) for s in symbols for step in STEPS]
    new = [v for i, v in enumerate(variants) if v and v not in variants[:i]]
    return [sizes for sizes in new if _satisfies(captured, sizes)]


def _satisfies(captured: Captured, sizes: Sizes) -> bool:
    values: Any = captured.hints | sizes
    return all(
        condition.subs(values) == sympy.true for condition in captured.conditions
    )


def _shapes(captured: Captured) -> list[list[sympy.Expr]]:
    """The symbolic shape of every input."""
    nodes = {
        node.name: node for node in captured.graph.nodes if node.op == "placeholder"
    }
    shapes = []
    for item in captured.inputs:
        shape: Any = item.example.shape
        if item.name in nodes:
            shape = nodes[item.name].meta["val"].shape
        shapes.append([captured.expr(size) for size in shape])
    return shapes


def _grown(captured: Captured, symbols: list[sympy.Symbol], steps: list[int]) -> Sizes:
    """Sizes that are `steps` larger than the example's, smaller where the model sets a limit."""
    limits = _limits(captured)
    sizes: Sizes = {}
    for symbol, step in zip(symbols, steps, strict=True):
        hint = captured.hints[symbol]
        low, high = limits.get(symbol, (2, sympy.oo))
        for size in (hint + step, hint - 1):
            if max(low, 2) <= size <= high:
                sizes[symbol] = size
                break
    return sizes


def _limits(captured: Captured) -> dict[sympy.Symbol, tuple[Any, Any]]:
    """The range of every symbol in which the captured graph holds."""
    limits: dict[sympy.Symbol, tuple[Any, Any]] = {}
    for node in captured.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for size in value.shape:
                if isinstance(size, torch.SymInt):
                    ranges = size.node.shape_env.var_to_range
                    limits |= {
                        symbol: (r.lower, r.upper) for symbol, r in ranges.items()
                    }
    for symbol in captured.hints:
        low, high = limits.get(symbol, (2, sympy.oo))
        least = captured.minima.get(symbol, low)
        most = captured.bounds.get(symbol, high)
        limits[symbol] = max(low, least), min(high, most)
    return limits


def _resized(
    captured: Captured, shapes: list[list[sympy.Expr]], sizes: Sizes, seed: int
) -> Inputs:
    tensors = _drawn(captured, shapes, sizes, seed)
    changed = [
        f"{_label(item)} {list(tensor.shape)}"
        for item, tensor in zip(captured.inputs, tensors, strict=True)
        if tensor.shape != item.example.shape
    ]
    return Inputs(f"sizes {', '.join(changed[:2])}", tensors)


def _drawn(
    captured: Captured, shapes: list[list[sympy.Expr]], sizes: Sizes, seed: int
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = captured.hints | sizes
    return [
        _like(item, [int(size.subs(list(values.items()))) for size in shape], generator)
        for item, shape in zip(captured.inputs, shapes, strict=True)
    ]


def _like(
    item: Input, shape: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Random values like the example's; what looks like a mask repeats the example."""
    old = item.example.detach()
    if old.numel() == 0:
        return old.new_zeros(shape)
    if old.dtype == torch.bool or _is_mask(item):
        for axis, size in enumerate(shape):
            index = torch.arange(size, device=old.device) % old.shape[axis]
            old = old.index_select(axis, index)
        return old
    if old.is_floating_point() or old.is_complex():
        kind = torch.complex64 if old.is_complex() else torch.float32
        return torch.randn(shape, generator=generator, dtype=kind).to(old)
    low, high = int(old.min()), int(old.max())
    return torch.randint(low, high + 1, shape, generator=generator).to(old)


def _padded(captured: Captured) -> Inputs | None:
    """The example with the end of every row of its masks flipped; a row is never flipped as a whole."""
    tensors, names = [], []
    for item in captured.inputs:
        tensor = item.example
        if (
            _is_mask(item)
            and tensor.ndim >= 2
            and tensor.shape[-1] >= 2
            and _is_constant(tensor)
        ):
            tensor = _flipped_ends(tensor)
            names.append(_label(item))
        tensors.append(tensor)
    return Inputs(f"padded {', '.join(names)}", tensors) if names else None


def _flipped_ends(mask: torch.Tensor) -> torch.Tensor:
    length = mask.shape[-1]
    rows = mask.reshape(-1, length).clone()
    for index, row in enumerate(rows):
        count = 1 + index % (length - 1)
        row[-count:] = ~row[-count:] if row.dtype == torch.bool else 1 - row[-count:]
    return rows.reshape(mask.shape)


def _is_mask(item: Input) -> bool:
    return "mask" in _label(item).lower()


def _is_constant(mask: torch.Tensor) -> bool:
    return bool(((mask == 0).all() | (mask == 1).all()).item())


def _label(item: Input) -> str:
    return item.argument + "".join(f"[{step!r}]" for step in item.path)
