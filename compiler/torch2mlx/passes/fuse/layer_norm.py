"""Layer norm written out.

c = sub(x, mean(x, [-1], True))                            ->   y = layer_norm(x, [32], w, b, 1e-5)
v = mean(pow(c, 2), [-1], True)
y = add(mul(w, div(c, sqrt(add(v, 1e-5)))), b)
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Either,
    Is,
    Match,
    Maybe,
    Number,
    Pattern,
    Tensor,
    add,
    div,
    dtype_of,
    fixed,
    keeping_last,
    mul,
    power,
    square,
    sub,
)
from torch2mlx.passes.rewrite import call

aten = torch.ops.aten

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

_x = Tensor("x")
_centred = sub(_x, keeping_last({aten.mean.dim}, _x))
_last, _kept = Is(lambda axis: axis == -1), Is(bool)
_spread = Either(
    keeping_last({aten.mean.dim}, square(_centred)),
    Call(
        {aten.var.correction},
        _x,
        dim=_last,
        correction=Is(lambda n: n is not None and n == 0),
        keepdim=_kept,
    ),
    Call(
        {aten.var.dim}, _x, dim=_last, unbiased=Is(lambda u: u is False), keepdim=_kept
    ),
)
_variance = add(_spread, Number("eps"))
_deviation = Either(Call({aten.sqrt.default}, _variance), power(_variance, 0.5))
_inverse = Either(
    Call({aten.rsqrt.default}, _variance), Call({aten.reciprocal.default}, _deviation)
)
_normalised = Either(mul(_centred, _inverse), div(_centred, _deviation))


def _weighted(x: Pattern) -> Pattern:
    return mul(x, Tensor("weight", ndim=1))


def _shifted(x: Pattern) -> Pattern:
    return add(x, Tensor("bias", ndim=1))


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    x, weight, bias = match["x"], match.get("weight"), match.get("bias")
    size = fixed(captured, x.meta["val"].shape[-1])
    if size is None:
        raise Declined("the size of the last axis is not fixed")
    for vector in (weight, bias):
        if vector is None:
            continue
        if fixed(captured, vector.meta["val"].shape[0]) != size:
            raise Declined("its weight or bias is not one number per element")
        if dtype_of(vector) != dtype_of(x):
            raise Declined("its weight has another dtype than what is normalised")
    if dtype_of(x) not in FLOATS or match["eps"] < 0:
        raise Declined(f"it is computed in {dtype_of(x)}, or its epsilon is negative")
    new = call(root, aten.layer_norm.default, x, [size], weight, bias, match["eps"])
    if dtype_of(new) != dtype_of(root):
        raise Declined(f"its result is {dtype_of(root)}")
    return new


LAYER_NORM = Fusion(
    "layer_norm",
    frozenset({aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor}),
    Maybe(_shifted, Maybe(_weighted, _normalised)),
    _build,
)
