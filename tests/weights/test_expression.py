"""Expressions over weights: the shape is known without the values, and nothing is rounded twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torch2mlx.errors import InputError
from torch2mlx.weights import WeightEntry, WeightPlan, apply
from torch2mlx.weights.expression import evaluate, shape_of

GENERATOR = np.random.default_rng(0)
# name: (shapes of the operands, attributes, what numpy makes of them)
CALLS: dict[str, tuple[list[tuple[int, ...]], tuple[Any, ...], Any]] = {
    "add": ([(2, 3), (3,)], (), np.add),
    "clip": ([(2, 3)], (0.2, None), lambda x: np.maximum(x, 0.2)),
    "concatenate": ([(2, 3), (4, 3)], (0,), lambda *x: np.concatenate(x)),
    "full": ([], ((2, 3), 0.5), lambda: np.full((2, 3), 0.5)),
    "matmul": ([(5, 2, 3), (3, 4)], (), np.matmul),
    "max": ([(2, 3, 4)], ((0, 2),), lambda x: x.max((0, 2), keepdims=True)),
    "number": ([], (0.25,), lambda: np.asarray(0.25)),
    "reshape": ([(2, 6)], ((4, 3),), lambda x: x.reshape(4, 3)),
    "rsqrt": ([(2, 3)], (), lambda x: x**-0.5),
    "sigmoid": ([(2, 3)], (), lambda x: 1 / (1 + np.exp(-x))),
    "slice": ([(2, 7)], (1, 1, 6, 2), lambda x: x[:, 1:6:2]),
    "softplus": ([(2, 3)], (), lambda x: np.log(1 + np.exp(x))),
    "transpose": ([(2, 3, 4)], ((2, 0, 1),), lambda x: x.transpose(2, 0, 1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    shapes, attributes, function = CALLS[name]
    arrays = [GENERATOR.random(shape) + 0.1 for shape in shapes]
    expression = ((name, tuple(range(len(arrays))), *attributes),)
    found = evaluate(expression, arrays, ["F64"] * len(arrays))
    expected = function(*arrays)
    assert found.shape == expected.shape == shape_of(expression, shapes)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (("add", (0, 1)), [(2, 3), (2,)]),
        (("add", (0, 2)), [(2, 3), (2, 3)]),
        (("concatenate", (0, 1), 0), [(2, 3), (2, 4)]),
        (("matmul", (0, 1)), [(2, 3), (2, 4)]),
        (("mean", (0,), (2,)), [(2, 3)]),
        (("reshape", (0,), (4,)), [(2, 3)]),
        (("slice", (0,), 2, 0, 1, 1), [(2, 3)]),
        (("slice", (0,), 0, 0, 1, 0), [(2, 3)]),
        (("take", (0, 1), 2), [(2, 3), (4,)]),
        (("transpose", (0,), (0, 0)), [(2, 3)]),
        (("number", (), "1"), []),
        (("unknown", (0,)), [(2,)]),
        (("add",), [(2,)]),
    ],
)
def test_calls_that_do_not_fit(call: Any, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="does not fit the shapes"):
        shape_of((call,), shapes)


def entry(dtype: str, **options: Any) -> WeightEntry:
    """weight / sqrt(variance + 0.001), per row."""
    calls = (
        ("number", (), 1e-3),
        ("add", (1, 2)),
        ("rsqrt", (3,)),
        ("reshape", (4,), (4, 1)),
        ("multiply", (0, 5)),
    )
    shapes = ((4, 3), (4,))
    return WeightEntry("w", ("a", "b"), dtype, shapes, expression=calls, **options)


def test_half_precision_is_rounded_once() -> None:
    torch.manual_seed(0)
    halves = [torch.randn(4, 3).bfloat16(), torch.rand(4).bfloat16()]
    exact = halves[0].double() / (halves[1].double() + 1e-3).sqrt()[:, None]
    raw = [half.view(torch.uint16).numpy() for half in halves]
    found = apply(entry("BF16"), dict(zip("ab", raw, strict=True)))
    assert found.tolist() == exact.float().bfloat16().view(torch.uint16).tolist()


def test_sources_of_several_dtypes() -> None:
    made = entry("F32", dtypes=("F16", "F32"))
    plan = WeightPlan((made,))
    assert WeightPlan.from_json(plan.to_json()) == plan
    assert plan.sources() == {"a": ("F16", (4, 3)), "b": ("F32", (4,))}
    arrays = {"a": np.ones((4, 3), np.float16), "b": np.ones(4, np.float32)}
    np.testing.assert_allclose(apply(made, arrays), 1.001**-0.5, rtol=1e-6)
    with pytest.raises(InputError, match="'a' is float32"):
        apply(made, arrays | {"a": np.ones((4, 3), np.float32)})


def test_a_plan_with_calls_that_do_not_fit() -> None:
    text = WeightPlan((entry("F32"),)).to_json()
    with pytest.raises(InputError, match="weight 'w': .*does not fit"):
        WeightPlan.from_json(text.replace("[4, 1]", "[5, 1]"))
    with pytest.raises(ValueError, match="an expression is not I32"):
        entry("I32")
