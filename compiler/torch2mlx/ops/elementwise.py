"""Elementwise operators that MLX has under some name, or as an operator of Python."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers, rename
from torch2mlx.ops.axes import is_float

aten = torch.ops.aten

rename(
    {
        aten.abs.default: "mx.abs",
        aten.absolute.default: "mx.abs",
        aten.acos.default: "mx.arccos",
        aten.arccos.default: "mx.arccos",
        aten.acosh.default: "mx.arccosh",
        aten.arccosh.default: "mx.arccosh",
        aten.asin.default: "mx.arcsin",
        aten.arcsin.default: "mx.arcsin",
        aten.asinh.default: "mx.arcsinh",
        aten.arcsinh.default: "mx.arcsinh",
        aten.atan.default: "mx.arctan",
        aten.arctan.default: "mx.arctan",
        aten.atan2.default: "mx.arctan2",
        aten.arctan2.default: "mx.arctan2",
        aten.atanh.default: "mx.arctanh",
        aten.arctanh.default: "mx.arctanh",
        aten.bitwise_and.Scalar_Tensor: "mx.bitwise_and",
        aten.bitwise_or.Scalar_Tensor: "mx.bitwise_or",
        aten.bitwise_xor.Scalar_Tensor: "mx.bitwise_xor",
        aten.ceil.default: "mx.ceil",
        aten.cos.default: "mx.cos",
        aten.cosh.default: "mx.cosh",
        aten.deg2rad.default: "mx.radians",
        aten.erf.default: "mx.erf",
        aten.special_erf.default: "mx.erf",
        aten.erfinv.default: "mx.erfinv",
        aten.special_erfinv.default: "mx.erfinv",
        aten.exp.default: "mx.exp",
        aten.floor.default: "mx.floor",
        aten.isfinite.default: "mx.isfinite",
        aten.isinf.default: "mx.isinf",
        aten.isnan.default: "mx.isnan",
        aten.isneginf.default: "mx.isneginf",
        aten.isposinf.default: "mx.isposinf",
        aten.log.default: "mx.log",
        aten.log10.default: "mx.log10",
        aten.log1p.default: "mx.log1p",
        aten.special_log1p.default: "mx.log1p",
        aten.log2.default: "mx.log2",
        aten.logaddexp.default: "mx.logaddexp",
        aten.logical_and.default: "mx.logical_and",
        aten.logical_not.default: "mx.logical_not",
        aten.logical_or.default: "mx.logical_or",
        aten.maximum.default: "mx.maximum",
        aten.max.other: "mx.maximum",
        aten.minimum.default: "mx.minimum",
        aten.min.other: "mx.minimum",
        aten.rad2deg.default: "mx.degrees",
        aten.reciprocal.default: "mx.reciprocal",
        aten.round.default: "mx.round",
        aten.rsqrt.default: "mx.rsqrt",
        aten.sign.default: "mx.sign",
        aten.sin.default: "mx.sin",
        aten.sinh.default: "mx.sinh",
        aten.sqrt.default: "mx.sqrt",
        aten.square.default: "mx.square",
        aten.tan.default: "mx.tan",
        aten.tanh.default: "mx.tanh",
        aten.trunc.default: "mx.trunc",
        aten.fix.default: "mx.trunc",
        aten.where.self: "mx.where",
        aten.where.ScalarOther: "mx.where",
        aten.where.ScalarSelf: "mx.where",
        aten.where.Scalar: "mx.where",
    }
)

OPERATORS = {
    operator.mul: (
        aten.mul.Tensor,
        aten.mul.Scalar,
        aten.multiply.Tensor,
        aten.multiply.Scalar,
    ),
    operator.truediv: (
        aten.div.Tensor,
        aten.div.Scalar,
        aten.divide.Tensor,
        aten.divide.Scalar,
        aten.true_divide.Tensor,
        aten.true_divide.Scalar,
    ),
    operator.eq: (aten.eq.Tensor, aten.eq.Scalar),
    operator.ne: (
        aten.ne.Tensor,
        aten.ne.Scalar,
        aten.not_equal.Tensor,
        aten.not_equal.Scalar,
    ),
    operator.lt: (
        aten.lt.Tensor,
        aten.lt.Scalar,
        aten.less.Tensor,
        aten.less.Scalar,
    ),
    operator.le: (
        aten.le.Tensor,
        aten.le.Scalar,
        aten.less_equal.Tensor,
        aten.less_equal.Scalar,
    ),
    operator.gt: (
        aten.gt.Tensor,
        aten.gt.Scalar,
        aten.greater.Tensor,
        aten.greater.Scalar,
    ),
    operator.ge: (
        aten.ge.Tensor,
        aten.ge.Scalar,
        aten.greater_equal.Tensor,
        aten.greater_equal.Scalar,
    ),
    operator.and_: (
        aten.bitwise_and.Tensor,
        aten.bitwise_and.Scalar,
        aten.__and__.Tensor,
        aten.__and__.Scalar,
    ),
    operator.or_: (
        aten.bitwise_or.Tensor,
        aten.bitwise_or.Scalar,
        aten.__or__.Tensor,
        aten.__or__.Scalar,
    ),
    operator.xor: (
        aten.bitwise_xor.Tensor,
        aten.bitwise_xor.Scalar,
        aten.__xor__.Tensor,
        aten.__xor__.Scalar,
    ),
    operator.mod: (
        aten.remainder.Tensor,
        aten.remainder.Scalar,
        aten.remainder.Scalar_Tensor,
    ),
    operator.invert: (aten.bitwise_not.default,),
    operator.neg: (aten.neg.default, aten.negative.default),
}


def _unary(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x)


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, other: function(x, other)


for _operator, _overloads in OPERATORS.items():
    _unary_one = _operator in (operator.invert, operator.neg)
    lowers(*_overloads)((_unary if _unary_one else _binary)(_operator))


@lowers(aten.expm1.default, aten.special_expm1.default)
def expm1(x: Any) -> Any:
    """`mx.expm1`, which MLX has of real numbers only."""
    return mx.exp(x) - 1 if x.dtype == mlx.core.complex64 else mx.expm1(x)


@lowers(aten.sigmoid.default, aten.special_expit.default)
def sigmoid(x: Any) -> Any:
    """`mx.sigmoid`, which MLX has of real numbers only."""
    return 1 / (1 + mx.exp(-x)) if x.dtype == mlx.core.complex64 else mx.sigmoid(x)


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(x: Any, other: Any, alpha: Any = 1) -> Any:
    """`x + other`."""
    return x + other if alpha == 1 else x + alpha * other


@lowers(aten.sub.Tensor, aten.sub.Scalar, aten.subtract.Tensor, aten.subtract.Scalar)
def sub(x: Any, other: Any, alpha: Any = 1) -> Any:
    """`x - other`."""
    return x - other if alpha == 1 else x - alpha * other


@lowers(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(x: Any, other: Any, alpha: Any = 1) -> Any:
    """`other - x`."""
    return other - x if alpha == 1 else other - alpha * x


@lowers(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power(x: Any, exponent: Any) -> Any:
    """`x**exponent`, squares and roots by their own functions."""
    if isinstance(exponent, int | float):
        if exponent == 1 and (is_float(x) or isinstance(exponent, int)):
            return x
        if exponent == 2 and (is_float(x) or isinstance(exponent, int)):
            return mx.square(x)
        if exponent == 0.5:
            return mx.sqrt(x)
        if exponent == -0.5:
            return mx.rsqrt(x)
        if exponent == -1 and is_float(x):
            return mx.reciprocal(x)
        if is_float(x) and isinstance(exponent, float) and exponent.is_integer():
            exponent = int(exponent)
    elif _is_whole(x) and _is_whole(exponent):
        return helpers.integer_power(x, exponent)
    return x**exponent


@lowers(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(x: Any, other: Any) -> Any:
    """`x // other`, which MLX rounds correctly where the divisor is a whole number."""
    whole = _is_whole(other) or (isinstance(other, float) and other.is_integer())
    return x // other if whole else helpers.floor_divide(x, other)


@lowers(
    aten.div.Tensor_mode,
    aten.div.Scalar_mode,
    aten.divide.Tensor_mode,
    aten.divide.Scalar_mode,
)
def div_mode(x: Any, other: Any, rounding_mode: str | None) -> Any:
    """Division rounded to zero ("trunc"), down ("floor"), or not at all."""
    if rounding_mode == "floor":
        return floor_divide(x, other)
    if rounding_mode is None:
        return x / other
    if is_float(x) or is_float(other):
        return mx.trunc(x / other)
    return helpers.truncated_division(x, other)


@lowers(aten.clamp.default, aten.clip.default, aten.clamp.Tensor, aten.clip.Tensor)
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """`mx.clip`, or one bound of it."""
    if max is None:
        return mx.maximum(x, min)
    if min is None:
        return mx.minimum(x, max)
    return mx.clip(x, min, max)


@lowers(aten.clamp_min.default, aten.clamp_min.Tensor)
def clamp_min(x: Any, min: Any) -> Any:
    """`mx.maximum`."""
    return mx.maximum(x, min)


@lowers(aten.clamp_max.default, aten.clamp_max.Tensor)
def clamp_max(x: Any, max: Any) -> Any:
    """`mx.minimum`."""
    return mx.minimum(x, max)


@lowers(aten.round.decimals, aten.special_round.default)
def round_decimals(x: Any, decimals: int = 0) -> Any:
    """`mx.round`."""
    return mx.round(x, decimals) if decimals else mx.round(x)


@lowers(aten.logical_xor.default)
def logical_xor(x: Any, other: Any) -> Any:
    """Whether exactly one of the two is non-zero."""
    return x.astype(mlx.core.bool_) != other.astype(mlx.core.bool_)


@lowers(
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_left_shift.Tensor_Scalar,
    aten.bitwise_left_shift.Scalar_Tensor,
    aten.__lshift__.Tensor,
    aten.__lshift__.Scalar,
)
def left_shift(x: Any, other: Any) -> Any:
    """`x << other`."""
    return mx.left_shift(x, other)


@lowers(
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_right_shift.Tensor_Scalar,
    aten.bitwise_right_shift.Scalar_Tensor,
    aten.__rshift__.Tensor,
    aten.__rshift__.Scalar,
)
def right_shift(x: Any, other: Any) -> Any:
    """`x >> other`."""
    return mx.right_shift(x, other)


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """`mx.where(mask, value, x)`."""
    return mx.where(mask, value, x)


@lowers(aten.nan_to_num.default)
def nan_to_num(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    """`mx.nan_to_num`; integers have neither nan nor infinities."""
    if not mlx.core.issubdtype(x.dtype, mlx.core.inexact):
        return x
    arguments = {"nan": nan, "posinf": posinf, "neginf": neginf}
    return mx.nan_to_num(x, **{k: v for k, v in arguments.items() if v is not None})


@lowers(aten.isclose.default)
def isclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """`mx.isclose`."""
    arguments: dict[str, Any] = {}
    if (rtol, atol) != (1e-5, 1e-8):
        arguments.update(rtol=rtol, atol=atol)
    if equal_nan:
        arguments["equal_nan"] = True
    return mx.isclose(x, other, **arguments)


@lowers(aten.positive.default)
def positive(x: Any) -> Any:
    """`x`."""
    return x


def _is_whole(x: Any) -> bool:
    """Whether a number or an array is of integers or booleans."""
    if isinstance(x, int | float | complex):
        return isinstance(x, int)
    return not mlx.core.issubdtype(x.dtype, mlx.core.inexact)
