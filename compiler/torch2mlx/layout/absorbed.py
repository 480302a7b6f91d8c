"""A node on channels-last operands, as the rules describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.layer import Weight
from torch2mlx.layout.perms import Perm, last


@dataclass
class Absorbed:
    """A node on channels-last operands.

    Attributes:
        target: What it calls.
        args: Its arguments.
        kwargs: Its keyword arguments.
        operands: The operands that are channels-last.
        result: Whether the result is.
        weights: Operands of lower rank -> the weights that they become, and the shapes of these.
        linears: Linear layers whose inputs come in another order -> channels and sizes of the inputs.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[torch.fx.Node]
    result: bool
    weights: dict[torch.fx.Node, tuple[Weight, tuple[int, ...]]] = field(
        default_factory=dict
    )
    linears: dict[torch.fx.Node, tuple[int, ...]] = field(default_factory=dict)


Rule = Callable[[torch.fx.Node, Captured], Absorbed | None]


def stored_in(node: torch.fx.Node, order: Perm) -> None:
    """Note the order in which a result is stored if it is channels-last."""
    if order != last(len(order)):
        node.meta["last"] = order
