"""Patterns of parts of an array: halves, and every second element."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.pattern import Match, Pattern, fixed, match_all
from torch2mlx.passes.rewrite import arguments, tensor_of

aten = torch.ops.aten

SPLITS = {aten.split.Tensor, aten.chunk.default, aten.split_with_sizes.default}


class Items(Pattern):
    """A list of arrays."""

    def __init__(self, *patterns: Pattern):
        self.patterns = patterns

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        if isinstance(value, list | tuple) and len(value) == len(self.patterns):
            yield from match_all(list(zip(self.patterns, value, strict=True)), found)


@dataclass(frozen=True)
class Part(Pattern):
    """The "first" or "second" half of an array along its last axis, or its "even" or "odd" elements."""

    name: str
    kind: str

    def match(self, value: Any, found: Match) -> Iterator[Match]:
        whole = part_of(found.captured, value)
        if whole is None:
            return
        source, elements, size = whole
        wanted = {
            "first": range(size)[: size // 2],
            "second": range(size)[size // 2 :],
            "even": range(size)[::2],
            "odd": range(size)[1::2],
        }[self.kind]
        if size % 2 or elements != wanted:
            return
        new = found.bind(self.name, source)
        if new is not None:
            yield new


def part_of(captured: Captured, node: Any) -> tuple[torch.fx.Node, range, int] | None:
    """(source, elements, size) where a node is a part of a source along the last axis, whose size is fixed."""
    if not isinstance(node, torch.fx.Node):
        return None
    if node.target is aten.slice.Tensor:
        given = arguments(node)
        source, bounds = given["self"], (given["start"], given["end"], given["step"])
        size = _fixed_last(captured, source, given["dim"])
        if size is None or any(not isinstance(b, int | None) for b in bounds):
            return None
        return source, range(size)[slice(*bounds)], size
    if node.target is operator.getitem and node.args[0].target in SPLITS:  # type: ignore[union-attr]
        split, index = node.args
        assert isinstance(split, torch.fx.Node)
        assert isinstance(index, int)
        given = arguments(split)
        size = _fixed_last(captured, given["self"], given["dim"])
        parts = [fixed(captured, part.shape[-1]) or 0 for part in split.meta["val"]]
        if size is None or sum(parts) != size:
            return None
        start = sum(parts[:index])
        return given["self"], range(size)[start : start + parts[index]], size
    return None


def _fixed_last(captured: Captured, source: Any, dim: int) -> int | None:
    tensor = tensor_of(source)
    if tensor is None or dim % tensor.ndim != tensor.ndim - 1:
        return None
    return fixed(captured, tensor.shape[-1])
