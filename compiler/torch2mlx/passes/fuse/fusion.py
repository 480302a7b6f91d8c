"""What a fusion is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.fx
from torch._ops import OpOverload

from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.pattern import Match, Pattern

Build = Callable[[Captured, torch.fx.Node, Match], torch.fx.Node]
Hint = Callable[[torch.fx.Node], str]


@dataclass(frozen=True)
class Fusion:
    """A pattern, and the operator that it stands for.

    Attributes:
        name: What `--disable-pass` and `--explain` call it.
        roots: Targets of the last call of the pattern.
        pattern: What is looked for.
        build: Given the last call and a match, puts the operator right before the call; raises
            `Declined` where the match does not prove that it computes the same.
        hint: Given a call that ends no match, why not, if it is one that seems to; else "".
    """

    name: str
    roots: frozenset[OpOverload]
    pattern: Pattern
    build: Build
    hint: Hint = lambda node: ""
