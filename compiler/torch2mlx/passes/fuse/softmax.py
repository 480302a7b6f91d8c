"""A softmax in float32 of what is rounded back to half precision: the operator computes so by itself.

y = to(softmax(x, -1, dtype=float32), bfloat16)     ->     y = softmax(x, -1)
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Is,
    Match,
    Number,
    Tensor,
    cast,
    dtype_of,
    uncast,
)
from torch2mlx.passes.rewrite import call

aten = torch.ops.aten

HALVES = (torch.float16, torch.bfloat16)

_wide = Call(
    {aten.softmax.int},
    Tensor("x"),
    Number("dim"),
    dtype=Is(lambda dtype: dtype in (None, torch.float32)),
)


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    (softmax,) = (n for n in match.inner if n.target is aten.softmax.int)
    x = match["x"]
    if dtype_of(x) == torch.float32:
        x = uncast(x)
    if dtype_of(softmax) != torch.float32 or dtype_of(root) not in HALVES:
        raise Declined("")
    if dtype_of(x) != dtype_of(root):
        raise Declined(f"it makes {dtype_of(root)} of {dtype_of(x)}")
    return call(root, aten.softmax.int, x, match["dim"])


SOFTMAX = Fusion("softmax", frozenset({aten.to.dtype}), cast(_wide), _build)
