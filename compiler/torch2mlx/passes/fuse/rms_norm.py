"""RMS norm written out.

v = mean(pow(x, 2), [-1], True)                    ->   y = rms_norm(x, [32], w, 1e-6)
y = mul(w, mul(x, rsqrt(add(v, 1e-6))))

In half precision: `to(mul(to(x, float32), ...), float16)` before the weight is what the operator does; a
weight that is applied in float32 stays so, and the conversions around it stay.
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
    Match,
    Maybe,
    Number,
    Tensor,
    add,
    cast,
    div,
    dtype_of,
    fixed,
    keeping_last,
    mul,
    power,
    square,
    uncast,
)
from torch2mlx.passes.rewrite import call

aten = torch.ops.aten

_mean_square = keeping_last({aten.mean.dim}, square(Tensor("wide")))
_variance = add(_mean_square, Number("eps"))
_deviation = Either(Call({aten.sqrt.default}, _variance), power(_variance, 0.5))
_inverse = Either(
    Call({aten.rsqrt.default}, _variance),
    power(_variance, -0.5),
    Call({aten.reciprocal.default}, _deviation),
)
_normalised = Either(mul(Tensor("x"), _inverse), div(Tensor("x"), _deviation))
_rounded = cast(_normalised)


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    x, wide, weight = match["x"], match["wide"], match.get("weight")
    if x is not wide and x is not uncast(wide) and uncast(x) is not uncast(wide):
        raise Declined("what is normalised is not what the mean square is of")
    size = fixed(captured, wide.meta["val"].shape[-1])
    if size is None:
        raise Declined("the size of the last axis is not fixed")
    if weight is not None and fixed(captured, weight.meta["val"].shape[0]) != size:
        raise Declined("its weight is not one number per element of the last axis")
    if dtype_of(wide) not in (torch.float32, torch.float16, torch.bfloat16):
        raise Declined(f"it is computed in {dtype_of(wide)}")
    if match["eps"] < 0:
        raise Declined("its epsilon is negative")
    source = _source(root, match)
    if weight is not None and dtype_of(weight) != dtype_of(source):
        raise Declined("the weight has another dtype than what is normalised")
    new = call(root, aten.rms_norm.default, source, [size], weight, match["eps"])
    if dtype_of(new) != dtype_of(root):
        raise Declined(f"its result is rounded to {dtype_of(root)}")
    return new


def _source(root: torch.fx.Node, match: Match) -> torch.fx.Node:
    """What the operator takes: `x` as it was before it became float32, where the result is rounded back."""
    wide = match["wide"]
    rounded = [n for n in match.inner if n.target is aten.to.dtype]
    narrow = uncast(wide)
    if not rounded:
        return wide
    if narrow is wide or dtype_of(rounded[0]) != dtype_of(narrow):
        raise Declined("it is not rounded to what it was before")
    return narrow


RMS_NORM = Fusion(
    "rms_norm",
    frozenset({aten.mul.Tensor, aten.div.Tensor, aten.to.dtype}),
    Either(
        mul(Maybe(cast, _normalised), Tensor("weight", ndim=1)),
        _rounded,
        _normalised,
    ),
    _build,
)
