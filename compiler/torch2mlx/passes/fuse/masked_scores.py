"""Masks that forbid by adding a low number choose instead, where every query sees some key.

m = where(allowed, 0.0, -3.4e38)                   ->   y = softmax(where(allowed, scores, -inf), -1)
y = softmax(add(scores, m), -1)

What is forbidden weighs nothing either way; in a row where nothing is allowed the sums would matter.
"""

from __future__ import annotations

import math

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.affine import Formulas
from torch2mlx.passes.fuse.attention import allowed_by
from torch2mlx.passes.fuse.attention_mask import some_key
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Is,
    Match,
    Tensor,
    add,
    dtype_of,
)
from torch2mlx.passes.rewrite import call, name_as, same_shape, with_arguments

aten = torch.ops.aten


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    scores, mask = match["scores"], match["mask"]
    allowed = allowed_by(mask)
    if allowed is None or dtype_of(scores) != dtype_of(mask):
        raise Declined("")
    sizes = scores.meta["val"].shape[-2:]
    if [captured.expr(s) for s in sizes] != [
        captured.expr(s) for s in allowed.meta["val"].shape[-2:]
    ]:
        raise Declined("the mask is not one of queries and keys")
    if not some_key(captured, Formulas(captured), allowed):
        raise Declined("it depends on values whether a query sees any key")
    chosen = call(root, aten.where.ScalarOther, allowed, scores, -math.inf)
    if not same_shape(captured, chosen.meta["val"], root.meta["val"]):
        raise Declined("the mask has axes that the scores have not")
    if dtype_of(chosen) != dtype_of(scores):
        raise Declined("its number has another dtype")
    name_as(allowed, mask)
    return with_arguments(root, self=chosen)


MASKED_SCORES = Fusion(
    "masked_scores",
    frozenset({aten.softmax.int}),
    Call(
        {aten.softmax.int},
        add(Tensor("scores"), Tensor("mask")),
        dim=Is(lambda axis: axis == -1),
        dtype=Is(lambda dtype: True),
    ),
    _build,
)
