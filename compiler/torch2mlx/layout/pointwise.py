"""The operations that compute each element alone, whatever the order of the axes."""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from torch2mlx.ir import intrinsics
from torch2mlx_templates import helpers

MX_ELEMENTWISE = """
    abs add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_invert bitwise_or
    bitwise_xor ceil clip conj conjugate cos cosh degrees divide equal erf erfinv exp expm1 floor floor_divide
    greater greater_equal imag isclose isfinite isinf isnan isneginf isposinf left_shift less less_equal log
    log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply nan_to_num
    negative not_equal ones_like power radians real reciprocal remainder right_shift round rsqrt sigmoid sign sin
    sinh sqrt square stop_gradient subtract tan tanh where zeros_like
"""
NN_ELEMENTWISE = """
    celu elu gelu gelu_approx gelu_fast_approx hardswish leaky_relu log_sigmoid mish prelu relu relu2 relu6 selu sigmoid
    silu softplus softshrink softsign tanh
"""
HELPER_ELEMENTWISE = (
    "copysign digamma floor_divide fmax fmin fmod gcd hypot integer_power lcm lgamma nextafter signbit sinc "
    "truncated_division xlogy"
)
OPERATORS = """
    abs add and_ eq floordiv ge gt inv invert le lshift lt mod mul ne neg or_ pos pow rshift sub truediv xor
"""

POINTWISE: set[Any] = {
    *(getattr(mx, name) for name in MX_ELEMENTWISE.split()),
    *(getattr(nn, name) for name in NN_ELEMENTWISE.split()),
    *(getattr(helpers, name) for name in HELPER_ELEMENTWISE.split()),
    *(getattr(operator, name) for name in OPERATORS.split()),
    intrinsics.astype,
}
POINTWISE_LAYERS = {nn.Dropout}
