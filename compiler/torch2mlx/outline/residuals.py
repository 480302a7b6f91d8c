"""Sums that some instances of a class leave out, such as the residual of a block that changes the width.

y = self.conv(x)                     y = self.conv(x)
y = add(y, x)    # in some    ->     if self.use_res_connect: y = add(y, x)
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import mlx.core as mx
import torch.fx

from torch2mlx.outline.operands import Op
from torch2mlx.outline.template import Template

SUMS = (operator.add, mx.add)
Passed = dict[torch.fx.Node, torch.fx.Node]  # a sum -> the summand that stands for it


def mark(node: torch.fx.Node, position: int) -> str:
    """How an optional sum is told among optional children: its name, and what stands for it."""
    return f"{position}+{node.name}"


def is_mark(name: str) -> bool:
    """Whether a name is that of an optional sum."""
    return "+" in name


def rival(name: str) -> str:
    """The mark of the same optional sum where its other summand stands for it."""
    position, _, node = name.partition("+")
    return f"{1 - int(position)}+{node}"


def ways(template: Template) -> Iterator[tuple[str, Passed]]:
    """Each sum of two arrays that could be left out, and what would stand for it."""
    for item in template.items:
        if not isinstance(item, Op) or item.node.target not in SUMS or item.kwargs:
            continue
        if len(item.args) == 2 and all(isinstance(a, torch.fx.Node) for a in item.args):
            for position, value in enumerate(item.args):
                yield mark(item.node, position), {item.node: value}
