"""Sizes that a function reads: unpacked once (`B, T, _ = x.shape`), or inline where used once."""

from __future__ import annotations

import ast
from collections import Counter

import torch
import torch.fx

from torch2mlx.emit import syntax
from torch2mlx.emit.statements import Statement
from torch2mlx.outline.operands import Dim

CHANNELS_LAST = {3: "BLC", 4: "BHWC", 5: "BDHWC"}
CHANNELS_FIRST = {1: "N", 2: "BD", 3: "BTD", 4: "BCHW", 5: "BCDHW"}
HEADS = "BHTD"  # of attention: rank 4, but no image


class Sizes:
    """How the sizes in one function are written.

    A size is unpacked where its array is defined, if it is read more than once, or read when nothing
    else needs the array any more.

    Args:
        statements: The function.
        taken: Names that are not free.
    """

    def __init__(self, statements: list[Statement], taken: set[str]):
        self.names: dict[Dim, str] = {}
        self.unpacked: dict[torch.fx.Node, list[str]] = {}
        counts: Counter[Dim] = Counter()
        last_use: dict[torch.fx.Node, int] = {}
        last_read: dict[torch.fx.Node, int] = {}
        for position, statement in enumerate(statements):
            counts.update(statement.dims())
            last_read.update({dim.value: position for dim in statement.dims()})
            last_use.update(dict.fromkeys(statement.arrays(), position))
        by_value: dict[torch.fx.Node, list[Dim]] = {}
        for dim in counts:
            by_value.setdefault(dim.value, []).append(dim)
        used = set(taken)
        for value, found in by_value.items():
            often = sum(counts[d] for d in found) > 1
            if often or last_read[value] > last_use.get(value, -1):
                self._unpack(value, found, used)

    def _unpack(self, value: torch.fx.Node, found: list[Dim], used: set[str]) -> None:
        letters = axis_names(value)
        names = []
        for axis, letter in enumerate(letters):
            dim = Dim(value, axis)
            if dim not in found:
                names.append("_")
                continue
            name = next(
                n
                for n in (letter, *(f"{letter}{i}" for i in range(2, 99)))
                if n not in used
            )
            used.add(name)
            self.names[dim] = name
            names.append(name)
        self.unpacked[value] = names

    def statement(self, node: torch.fx.Node, value: ast.expr) -> list[ast.stmt]:
        """The statement that unpacks the sizes of `node`, if its sizes are unpacked."""
        names = self.unpacked.get(node)
        if names is None:
            return []
        shape = ast.Attribute(value, "shape")
        known = [i for i, name in enumerate(names) if name != "_"]
        if len(known) == 1:
            target = syntax.name(names[known[0]])
            return [
                syntax.assign([target], ast.Subscript(shape, ast.Constant(known[0])))
            ]
        return [syntax.assign([syntax.name(name) for name in names], shape)]


def axis_names(value: torch.fx.Node) -> str:
    """One letter for each axis of a value as it is stored."""
    rank = value.meta["hint"].ndim
    tensor = value.meta.get("val")
    integers = isinstance(tensor, torch.Tensor) and not tensor.dtype.is_floating_point
    if value.meta.get("perm") and rank in CHANNELS_LAST:
        return CHANNELS_LAST[rank]
    if rank == 2 and integers:
        return "BT"
    return CHANNELS_FIRST.get(rank, "ABCDEFGHIJ"[:rank])
