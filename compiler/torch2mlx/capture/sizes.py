"""The symbols of a captured graph: which are one, and which sizes an axis of size 1 allows."""

from __future__ import annotations

from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture.captured import Captured, Input
from torch2mlx.capture.provenance import source_line, unsupported
from torch2mlx.capture.values import is_read

aten = torch.ops.aten

SQUEEZES = {
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze_.default,
    aten.squeeze_.dim,
    aten.squeeze_.dims,
}


def symbols(
    graph: torch.fx.Graph, inputs: list[Input]
) -> tuple[dict[sympy.Symbol, sympy.Symbol], dict[sympy.Symbol, int]]:
    """Which batch symbols are one, and the example sizes of all symbols.

    torch.export gives each input its own batch symbol where the model never relates them (an attention
    mask that is indexed by rows of another input, for instance). Token ids and masks share one batch, so
    integer inputs with the same example batch share the symbol, and a mask has that of what it masks.
    """
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    hints: dict[sympy.Symbol, int] = {}
    batches: list[tuple[Input, sympy.Symbol]] = []
    others: set[sympy.Symbol] = set()
    for item in inputs:
        for axis, size in enumerate(placeholders[item.name].meta["val"].shape):
            symbol = None if isinstance(size, int) else size.node.expr
            if not isinstance(symbol, sympy.Symbol):
                continue
            hints.setdefault(symbol, item.example.shape[axis])
            if axis == 0:
                batches.append((item, symbol))
            else:
                others.add(symbol)
    batches = [(item, symbol) for item, symbol in batches if symbol not in others]
    return _guarded(graph, list(hints)) | _unified(batches), hints


def _guarded(
    graph: torch.fx.Graph, symbols: list[Any]
) -> dict[sympy.Symbol, sympy.Symbol]:
    """The symbols that torch.export found equal, be it by the sizes of what it reshapes."""
    sizes = (s for n in graph.nodes if n.op == "placeholder" for s in _sizes(n))
    size = next((s for s in sizes if isinstance(s, torch.SymInt)), None)
    found: dict[sympy.Symbol, sympy.Symbol] = {}
    for guard in size.node.shape_env.guards if size is not None else ():
        if not isinstance(guard.expr, sympy.Eq) or guard.expr.rhs == 0:
            continue
        sides: tuple[Any, ...] = guard.expr.args
        first, second = sympy.fraction(sympy.cancel(sides[0] / sides[1]))
        if first in symbols and second in symbols:
            places = sorted(symbols.index(symbol) for symbol in (first, second))
            keep, drop = (symbols[place] for place in places)
            while keep in found:
                keep = found[keep]
            if keep != drop:
                found[drop] = keep
    return found


def _sizes(node: torch.fx.Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _unified(
    batches: list[tuple[Input, sympy.Symbol]],
) -> dict[sympy.Symbol, sympy.Symbol]:
    by_size: dict[int, list[tuple[Input, sympy.Symbol]]] = {}
    for item, symbol in batches:
        by_size.setdefault(item.example.shape[0], []).append((item, symbol))
    unified: dict[sympy.Symbol, sympy.Symbol] = {}
    for same in by_size.values():
        joined = [(i, s) for i, s in same if _is_mask(i) or _is_integer(i)]
        owners = [(i, s) for i, s in joined if not _is_mask(i)]
        owners = owners or [(i, s) for i, s in same if not _is_mask(i)] or joined
        for _, symbol in joined:
            if symbol != owners[0][1]:
                unified[symbol] = owners[0][1]
    return unified


def _is_integer(item: Input) -> bool:
    return not item.example.is_floating_point()


def _is_mask(item: Input) -> bool:
    return "mask" in item.name.lower() and 2 <= item.example.ndim <= 4


def note_minima(captured: Captured, owner: torch.nn.Module) -> None:
    """Note the sizes that must not be 1, or must be: torch.export takes those that vary to be at least 2.

    Args:
        captured: Its `minima` and `notes` are added to.
        owner: The module of its graph, which holds the graphs of its branches.
    """
    for module in owner.modules():
        for node in (
            module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
        ):
            if node.target in SQUEEZES:
                for size in _squeezed(node):
                    _note_minimum(captured, node, captured.expr(size))


def _squeezed(node: torch.fx.Node) -> list[Any]:
    """The sizes of the axes that a call drops where they are 1."""
    shape = node.all_input_nodes[0].meta["val"].shape
    axes: Any = node.args[1] if len(node.args) > 1 else list(range(len(shape)))
    axes = axes if isinstance(axes, list | tuple) else [axes]
    return [shape[axis] for axis in axes] if len(shape) else []


def _note_minimum(captured: Captured, node: torch.fx.Node, size: sympy.Expr) -> None:
    symbols = [s for s in size.free_symbols if isinstance(s, sympy.Symbol)]
    if size.subs(dict.fromkeys(symbols, 1)) > 1 or not symbols:
        return
    if any(map(is_read, symbols)):
        raise unsupported(
            node,
            "it drops an axis only where its size, which depends on values, is 1: use reshape",
        )
    if size.subs([(symbol, captured.hints[symbol]) for symbol in symbols]) == 1:
        _keep(captured, symbols, source_line(node))
        return
    what = f"{size} must not be 1"
    if len(symbols) == 1:
        (symbol,) = symbols
        smallest = _smallest(size, symbol, captured.hints[symbol])
        captured.minima[symbol] = max(smallest, captured.minima.get(symbol, 1))
        what = f"{label(captured, symbol)} must be at least {smallest}"
    note = f"{what}: squeeze would drop an axis of size 1 at {source_line(node)}"
    if note not in captured.notes:
        captured.notes.append(note)


def _keep(captured: Captured, symbols: list[sympy.Symbol], line: str) -> None:
    """The axis is gone: the sizes that it follows from must be the example's."""
    for symbol in symbols:
        hint = captured.hints[symbol]
        captured.minima[symbol] = captured.bounds[symbol] = hint
        where = f"squeeze drops an axis of size 1 at {line}"
        note = f"{label(captured, symbol)} must be {hint}: {where}"
        if note not in captured.notes:
            captured.notes.append(note)


def _smallest(size: sympy.Expr, symbol: sympy.Symbol, hint: int) -> int:
    """The smallest value of a symbol from which on, up to its example, a size is not 1."""
    if size == symbol:
        return 2
    while hint > 1 and size.subs(symbol, hint - 1) > 1:
        hint -= 1
    return hint


def label(captured: Captured, symbol: sympy.Symbol) -> str:
    """What messages call a size: how it is read, where an input has it."""
    place = place_of(captured, symbol)
    return f"the size {symbol}" if place is None else f"`{place}`"


def place_of(captured: Captured, symbol: sympy.Symbol) -> str | None:
    """How a size is read from the first input that has it: `x.shape[2]`; None where none has."""
    placeholders = {n.name: n for n in captured.graph.nodes if n.op == "placeholder"}
    for item in captured.inputs:
        for axis, size in enumerate(placeholders[item.name].meta["val"].shape):
            if captured.expr(size) == symbol:
                return f"{item.name}.shape[{axis}]"
    return None
