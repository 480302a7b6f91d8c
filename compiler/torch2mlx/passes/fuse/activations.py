"""Activations written out.

y = mul(mul(x, 0.5), add(erf(mul(x, 0.7071)), 1))     ->   y = gelu(x)
y = mul(x, sigmoid(mul(x, 1.702)))                    ->   y = quick_gelu(x)
y = mul(x, sigmoid(x))                                ->   y = silu(x)
y = mul(silu(x), z)                                   ->   y = swiglu(x, z)

The products may be grouped in any way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir import operators
from torch2mlx.passes.fuse.fusion import Build, Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Either,
    Match,
    Number,
    Pattern,
    Product,
    Tensor,
    add,
    dtype_of,
    mul,
    power,
    square,
)
from torch2mlx.passes.rewrite import call, same_shape

aten = torch.ops.aten

ROOTS = frozenset({aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor})
CUBIC = 0.044715

_x = Tensor("x")


def _one_plus(pattern: Pattern) -> Pattern:
    return add(pattern, Number(value=1))


def _scaled(number: float) -> Pattern:
    return Product(_x, number=number)


_exact = Product(
    _x,
    _one_plus(Call({aten.erf.default}, _scaled(math.sqrt(0.5)))),
    number=0.5,
)
_cubic = Either(
    Product(power(_x, 3), number=CUBIC),
    Product(_x, square(_x), number=CUBIC),
    Product(_x, _x, _x, number=CUBIC),
)
_square = Either(
    Product(square(_x), number=CUBIC),
    Product(_x, _x, number=CUBIC),
)
_argument = Either(
    Product(add(_x, _cubic), number=math.sqrt(2 / math.pi)),
    Product(_x, _one_plus(_square), number=math.sqrt(2 / math.pi)),
)
_tanh = Product(_x, _one_plus(Call({aten.tanh.default}, _argument)), number=0.5)


def _is_tanh(match: Match) -> bool:
    return any(node.target is aten.tanh.default for node in match.inner)


def _gelu(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    options = {"approximate": "tanh"} if _is_tanh(match) else {}
    return _of_x(root, match, aten.gelu.default, **options)


def _unary(target: Any) -> Build:
    def build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
        return _of_x(root, match, target)

    return build


def _of_x(
    root: torch.fx.Node, match: Match, target: Any, **options: Any
) -> torch.fx.Node:
    x = match["x"]
    if dtype_of(x) != dtype_of(root) or not dtype_of(x).is_floating_point:
        raise Declined(f"it makes {dtype_of(root)} of {dtype_of(x)}")
    return call(root, target, x, **options)


def _swiglu(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    gate, x = match["gate"], match["x"]
    if dtype_of(gate) != dtype_of(x) or not dtype_of(x).is_floating_point:
        raise Declined(f"a gate of {dtype_of(gate)} for {dtype_of(x)}")
    if not same_shape(captured, gate.meta["val"], x.meta["val"]):
        raise Declined("the gate has another shape")
    return call(root, operators.SWIGLU, gate, x)


def _sigmoid(argument: Pattern) -> Pattern:
    return Call({aten.sigmoid.default}, argument)


GELU = Fusion("gelu", ROOTS, Either(_exact, _tanh), _gelu)
QUICK_GELU = Fusion(
    "quick_gelu",
    ROOTS,
    mul(_x, _sigmoid(_scaled(1.702))),
    _unary(operators.QUICK_GELU),
)
SILU = Fusion("silu", ROOTS, mul(_x, _sigmoid(_x)), _unary(aten.silu.default))
SWIGLU = Fusion(
    "swiglu", ROOTS, mul(Call({aten.silu.default}, Tensor("gate")), _x), _swiglu
)
