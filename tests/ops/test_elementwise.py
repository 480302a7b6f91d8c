"""Elementwise operators against PyTorch: rounding, signs, promotion, nan and empty arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import INF, NAN, bools, case, floats, ints

SIGNED = floats(-7.5, -2.0, -0.5, 0.5, 2.0, 7.5)
WHOLE = ints(-7, -3, 0, 3, 7, 8)
DIVISOR = ints(2, -2, 3, -3, -4, 5)
COMPLEX = torch.tensor([1 + 2j, -0.5j, -3 + 0.25j])


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("int floor", lambda a, b: a // b, WHOLE, DIVISOR),
        case("int true", lambda a, b: a / b, WHOLE, DIVISOR),
        case(
            "int trunc",
            lambda a, b: torch.div(a, b, rounding_mode="trunc"),
            WHOLE,
            DIVISOR,
        ),
        case(
            "int trunc scalar", lambda a: torch.div(a, -3, rounding_mode="trunc"), WHOLE
        ),
        case("float floor", lambda a: a // -2.0, SIGNED),
        case("float floor by a fraction", lambda a: a // 0.1, floats(1.0, 0.3, -0.7)),
        case(
            "float floor by an array",
            lambda a, b: torch.div(a, b, rounding_mode="floor"),
            floats(6.0, -1.0, 1.0, -1.0, -2.0, INF),
            floats(0.1, 0.1, 0.0, 0.0, INF, 2.0),
        ),
        case("gcd", torch.gcd, ints(12, -18, 0, 0, 7), ints(-8, 12, 5, 0, 49)),
        case("lcm", torch.lcm, ints(12, -18, 0, 0, 7), ints(-8, 12, 5, 0, 49)),
        case(
            "gcd of many steps",
            torch.gcd,
            ints(7540113804746346429),
            ints(4660046610375530309),
        ),
        case("float trunc", lambda a: torch.div(a, 2, rounding_mode="trunc"), SIGNED),
        case("no rounding", lambda a: torch.div(a, 2, rounding_mode=None), WHOLE),
        case("int remainder", lambda a, b: a % b, WHOLE, DIVISOR),
        case("float remainder", lambda a: a % -2.0, SIGNED),
        case("remainder of a number", lambda b: 7 % b, DIVISOR),
        case("int fmod", torch.fmod, WHOLE, DIVISOR),
        case("float fmod", lambda a: torch.fmod(a, -2.0), SIGNED),
        case("large ints", lambda a: a // 3 + a % 3, ints(2**40 + 1, -(2**40))),
    ],
)
def test_division(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("half to even", torch.round, floats(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)),
        case(
            "decimals", lambda x: torch.round(x, decimals=1), floats(-0.25, 0.35, 12.04)
        ),
        case(
            "negative decimals",
            lambda x: torch.round(x, decimals=-1),
            floats(14.0, 26.0),
        ),
        case("ints", torch.round, WHOLE),
        case("floor of ints", torch.floor, WHOLE),
        case("trunc", torch.trunc, SIGNED),
        case("frexp", torch.frexp, floats(0.0, 1.0, -3.0, 1e-45, 1e38, -2e-30)),
        case("ldexp", torch.ldexp, SIGNED, WHOLE),
        case(
            "ldexp of ints", torch.ldexp, WHOLE, floats(0.5, 1.0, 2.0, -1.0, 0.0, 3.0)
        ),
        case(
            "nextafter",
            torch.nextafter,
            floats(0.0, 0.0, 1.0, INF, NAN, 2.0),
            floats(1.0, -1.0, 0.0, 0.0, 1.0, 2.0),
        ),
        case(
            "nextafter of halves",
            lambda x: torch.nextafter(x.half(), x.half() * 2),
            SIGNED,
        ),
        case("frac", torch.frac, SIGNED),
        case("sign", torch.sign, floats(-2.0, 0.0, -0.0, 3.0)),
        case("signbit", torch.signbit, floats(-2.0, 0.0, -0.0, 3.0)),
        case(
            "copysign", torch.copysign, SIGNED, floats(1.0, -1.0, 0.0, -0.0, 2.0, -2.0)
        ),
    ],
)
def test_rounding(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("int to a power", lambda x: x**3, WHOLE),
        case(
            "complex powers",
            lambda x, y: (x**y, x**3, torch.float_power(x, y)),
            COMPLEX,
            COMPLEX.flip(0),
        ),
        case(
            "complex functions", lambda x: (torch.expm1(x), torch.sigmoid(x)), COMPLEX
        ),
        case("int to a float power", lambda x: x**0.5, ints(0, 4, 9)),
        case(
            "int to an int array",
            torch.pow,
            ints(1, -1, 2, 0, -2),
            ints(-3, -3, -2, 3, 3),
        ),
        case("number to an int array", lambda x: 2**x, ints(0, 5, 30)),
        case("negative power", lambda x: x**-1, SIGNED),
        case("inverse root", lambda x: x**-0.5, floats(0.25, 4.0)),
        case("root", lambda x: x**0.5, floats(0.25, 4.0)),
        case("whole float power", lambda x: x**3.0, SIGNED),
        case("first power of ints", lambda x: x**1.0, WHOLE),
        case("square of bools", lambda x: x**2, bools(1, 0)),
        case("float power", torch.float_power, WHOLE, ints(2, 2, 2, 3, 2, 2)),
        case("number to a float array", lambda x: torch.pow(2.5, x), SIGNED),
    ],
)
def test_power(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("bool plus bool", lambda a, b: a + b, bools(1, 1, 0), bools(1, 0, 0)),
        case("bool plus int", lambda a: a + 1, bools(1, 0)),
        case("bool plus float", lambda a: a + 0.5, bools(1, 0)),
        case("bool times float", lambda a, b: a * b, bools(1, 0), floats(2.5, 3.5)),
        case("int plus float", lambda a: a + 0.5, WHOLE),
        case("one minus int", lambda a: 1 - a, WHOLE),
        case("one minus float", lambda a: 1.0 - a, SIGNED),
        case("alpha", lambda a, b: torch.add(a, b, alpha=2), WHOLE, DIVISOR),
        case(
            "sub alpha", lambda a, b: torch.sub(a, b, alpha=2), SIGNED, SIGNED.flip(0)
        ),
        case(
            "rsub alpha", lambda a, b: torch.rsub(a, b, alpha=2), SIGNED, SIGNED.flip(0)
        ),
        case("int32 plus int64", lambda a, b: a + b, WHOLE.int(), DIVISOR),
        case(
            "uint8 plus int8",
            lambda a, b: a + b,
            ints(200, 3).byte(),
            ints(-3, 9).char(),
        ),
        case("uint8 wraps", lambda a: a - 5, ints(2, 9).byte()),
        case("not", lambda a: ~a, bools(1, 0)),
        case("invert", lambda a: ~a, WHOLE),
        case("logical not of ints", torch.logical_not, WHOLE),
        case("logical xor of ints", torch.logical_xor, WHOLE, ints(1, 0, 1, 0, 0, 2)),
        case("bitwise", lambda a, b: (a & b) | (a ^ 5), WHOLE, DIVISOR),
        case("shifts", lambda a: (a << 2) >> 1, WHOLE),
        case("array of shifts", torch.bitwise_left_shift, ints(1, 3), ints(4, 2)),
        case("compare", lambda a: (a > 0.5) & (a != 2), SIGNED),
        case("compare with a float", lambda a: a >= 2.5, WHOLE),
    ],
)
def test_promotion(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_arrays_without_axes_are_weak(dtype: torch.dtype) -> None:
    """PyTorch keeps the dtype of the array with axes; MLX would promote it."""
    scale = torch.tensor(1.5)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    for function in (
        lambda x, s: x * s,
        lambda x, s: torch.where(x > 1.5, x, s),
        lambda x, s: torch.clamp(x, max=s),
    ):
        (y,) = run_lowered(function, (x, scale))
        assert str(y.dtype).rpartition(".")[2] == str(dtype).rpartition(".")[2]
    (y,) = run_lowered(lambda n, s: n * s, (WHOLE.int(), torch.tensor(2)))
    assert y.dtype == mx.int32


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("maximum", torch.maximum, floats(NAN, 1.0, 2.0), floats(0.0, NAN, 1.0)),
        case("minimum", torch.minimum, floats(NAN, 1.0, 2.0), floats(0.0, NAN, 1.0)),
        case("fmax", torch.fmax, floats(NAN, 1.0, NAN), floats(0.0, NAN, NAN)),
        case("fmin", torch.fmin, floats(NAN, 1.0, NAN), floats(0.0, NAN, NAN)),
        case("clamp", lambda x: x.clamp(-1, 1), floats(NAN, -INF, INF, 0.5)),
        case("clamp ints by floats", lambda x: x.clamp(-2.5, 2.5), WHOLE),
        case("clamp by arrays", torch.clamp, SIGNED, SIGNED.neg(), SIGNED.abs()),
        case("clamp crossed bounds", lambda x: x.clamp(2, -2), SIGNED),
        case("clamp below", lambda x: x.clamp(min=0), SIGNED),
        case("clamp above", lambda x: x.clamp(max=1.5), WHOLE),
        case("clamp_min", lambda x: torch.clamp_min(x, 1), WHOLE),
        case("nan_to_num", torch.nan_to_num, floats(NAN, INF, -INF, 2.0)),
        case(
            "nan_to_num with numbers",
            lambda x: torch.nan_to_num(x, 1.0, 2.0, 3.0),
            floats(NAN, INF, -INF),
        ),
        case("nan_to_num of ints", torch.nan_to_num, WHOLE),
        case(
            "isclose",
            lambda a, b: torch.isclose(a, b, atol=0.1, equal_nan=True),
            floats(1.0, NAN, 2.0),
            floats(1.05, NAN, 2.5),
        ),
        case(
            "tests",
            lambda x: (x.isnan(), x.isinf(), x.isfinite(), x.isposinf()),
            floats(NAN, INF, -INF, 1.0),
        ),
        case(
            "masked_fill",
            lambda x, m: x.masked_fill(m, -INF),
            SIGNED,
            bools(1, 0, 0, 1, 0, 1),
        ),
        case(
            "masked_fill of ints",
            lambda x, m: x.masked_fill(m, 9),
            WHOLE,
            bools(1, 0, 0, 1, 0, 1),
        ),
        case(
            "where with a number",
            lambda m, x: torch.where(m, x, 0.5),
            bools(1, 0),
            ints(3, 4),
        ),
        case("where of numbers", lambda m: torch.where(m, 1, 0), bools(1, 0)),
        case(
            "xlogy",
            torch.xlogy,
            floats(0.0, 0.0, 1.0, -1.0),
            floats(0.0, NAN, 2.0, 3.0),
        ),
        case(
            "heaviside", torch.heaviside, floats(-1.0, 0.0, 2.0), floats(0.5, 0.5, 0.5)
        ),
    ],
)
def test_bounds_and_nan(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


UNARY = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "deg2rad",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "neg",
    "positive",
    "rad2deg",
    "reciprocal",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "logit",
    "sgn",
]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    function = getattr(torch, name)
    x = torch.linspace(0.05, 0.95, 12).reshape(3, 4)
    x = x + 1 if name == "acosh" else x
    run_lowered(function, (x,), (x[:2, :3],), tolerance=2e-5)
    run_lowered(function, (torch.zeros(0, 3),))
    run_lowered(
        function, (torch.tensor(1.0 if name == "acosh" else 0.25),), tolerance=2e-5
    )


@pytest.mark.parametrize(
    "name", ["exp", "sqrt", "sin", "reciprocal", "sigmoid", "log1p"]
)
def test_ints_become_floats(name: str) -> None:
    run_lowered(getattr(torch, name), (ints(1, 2, 3),), tolerance=2e-5)
    run_lowered(getattr(torch, name), (bools(1, 1),), tolerance=2e-5)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case(
            "addcmul",
            lambda a, b, c: torch.addcmul(a, b, c, value=2),
            SIGNED,
            SIGNED,
            SIGNED,
        ),
        case(
            "addcdiv",
            lambda a, b, c: torch.addcdiv(a, b, c, value=2),
            SIGNED,
            SIGNED,
            SIGNED,
        ),
        case("lerp", lambda a, b: torch.lerp(a, b, 0.3), SIGNED, SIGNED.flip(0)),
        case("lerp by an array", torch.lerp, SIGNED, SIGNED.flip(0), SIGNED),
        case("atan2", torch.atan2, SIGNED, SIGNED.flip(0)),
        case("hypot", torch.hypot, SIGNED, SIGNED.flip(0)),
        case("logaddexp", torch.logaddexp, SIGNED, SIGNED.flip(0)),
        case("logaddexp2", torch.logaddexp2, SIGNED, SIGNED.flip(0)),
        case("logit clipped", lambda x: torch.logit(x, 0.1), floats(0.01, 0.5, 0.99)),
        case("angle", torch.angle, floats(-1.0, 0.0, 2.0)),
        case(
            "broadcast", lambda a, b: a * b - b, torch.randn(3, 1, 4), torch.randn(5, 1)
        ),
    ],
)
def test_formulas(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_complex_numbers() -> None:
    def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(-1, 4, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles))

    run_lowered(rotate, (torch.randn(3, 8), torch.randn(3, 4)))


def test_code_is_what_people_write() -> None:
    import operator

    def targets(function: Callable[..., Any], *args: Any) -> list[Any]:
        graph = lowered(function, args).graph
        return [n.target for n in graph.nodes if n.op == "call_function"]

    assert targets(lambda x: x + 1, SIGNED) == [operator.add]
    assert targets(lambda x: x**2, SIGNED) == [mx.square]
    assert targets(lambda x: x**-0.5, SIGNED) == [mx.rsqrt]
    assert targets(lambda x: x.clamp(0, 1), SIGNED) == [mx.clip]
