"""The weight plan: shapes, merges, JSON, and the arrays that it makes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch2mlx.errors import InputError
from torch2mlx.weights import WeightEntry, WeightPlan, apply

F32 = np.dtype("<f4")


def entry(
    *shapes: tuple[int, ...], dtype: str = "F32", key: str = "w", **kwargs: Any
) -> WeightEntry:
    sources = tuple(f"s{i}" for i in range(len(shapes)))
    return WeightEntry(key, sources, dtype, shapes, **kwargs)


def numbered(shape: tuple[int, ...], start: int = 0) -> np.ndarray:
    return np.arange(start, start + math.prod(shape), dtype=F32).reshape(shape)


def bf16(*values: float) -> np.ndarray:
    """Values that bfloat16 holds exactly, as raw bits."""
    bits = np.array(values, dtype=F32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def decoded(raw: np.ndarray) -> list[float]:
    return (raw.astype(np.uint32) << 16).view(F32).tolist()


def test_conv_weight_goes_channels_last():
    conv = entry((8, 3, 5, 7), steps=(("transpose", (0, 2, 3, 1)),))
    source = numbered((8, 3, 5, 7))
    result = apply(conv, {"s0": source})
    assert conv.out_shape == result.shape == (8, 5, 7, 3)
    assert result[4, 2, 6, 1] == source[4, 1, 2, 6]
    assert np.shares_memory(result, source)


def test_steps_are_taken_in_order():
    steps = (("transpose", (1, 0)), ("reshape", (2, 2, 3)), ("slice", 1, 1, 2))
    split = entry((3, 4), steps=steps)
    result = apply(split, {"s0": numbered((3, 4))})
    assert split.out_shape == (2, 1, 3)
    assert result.tolist() == [[[1, 5, 9]], [[3, 7, 11]]]


@st.composite
def stepped(draw: st.DrawFn) -> tuple[WeightEntry, np.ndarray]:
    """A random valid chain of steps and what it gives, by indexing alone."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    index = np.arange(math.prod(shape)).reshape(shape)
    steps: list[tuple[Any, ...]] = []
    for kind in draw(
        st.lists(st.sampled_from(["transpose", "reshape", "slice"]), max_size=4)
    ):
        if kind == "transpose":
            perm = tuple(draw(st.permutations(range(index.ndim))))
            steps.append((kind, perm))
            index = np.moveaxis(index, perm, range(index.ndim))
        elif kind == "reshape":
            kept = [n for n in index.shape if n != 1] or [1]
            new = (math.prod(kept[:-1]), 1, kept[-1])
            steps.append((kind, new))
            index = np.array(index.ravel().tolist(), int).reshape(new)
        elif index.ndim:
            axis = draw(st.integers(0, index.ndim - 1))
            start = draw(st.integers(0, index.shape[axis]))
            stop = draw(st.integers(start, index.shape[axis]))
            steps.append((kind, axis, start, stop))
            index = np.take(index, range(start, stop), axis)
    return entry(shape, steps=tuple(steps)), index


@given(stepped())
def test_random_steps(case: tuple[WeightEntry, np.ndarray]):
    made, index = case
    source = numbered(made.shapes[0], start=100)
    result = apply(made, {"s0": source})
    assert result.shape == made.out_shape == index.shape
    assert np.array_equal(result, index + 100)
    plan = WeightPlan((made,))
    assert WeightPlan.from_json(plan.to_json()) == plan


def test_concat():
    qkv = entry((2, 3), (1, 3), (4, 3), merge="concat")
    parts = {f"s{i}": numbered(s, i * 10) for i, s in enumerate(qkv.shapes)}
    result = apply(qkv, parts)
    assert qkv.out_shape == result.shape == (7, 3)
    assert result[:, 0].tolist() == [0, 3, 10, 20, 23, 26, 29]
    wide = entry((2, 3), (2, 1), merge="concat", axis=1)
    assert wide.out_shape == (2, 4)
    assert apply(
        wide, {"s0": numbered((2, 3)), "s1": numbered((2, 1), 7)}
    ).tolist() == [
        [0, 1, 2, 7],
        [3, 4, 5, 8],
    ]


def test_stack_then_transpose():
    experts = entry((2, 3), (2, 3), merge="stack", steps=(("transpose", (0, 2, 1)),))
    parts = {"s0": numbered((2, 3)), "s1": numbered((2, 3), 6)}
    assert experts.out_shape == (2, 3, 2)
    assert apply(experts, parts).tolist() == [
        [[0, 3], [1, 4], [2, 5]],
        [[6, 9], [7, 10], [8, 11]],
    ]
    last = entry((2,), (2,), merge="stack", axis=1)
    assert apply(last, {"s0": numbered((2,)), "s1": numbered((2,), 5)}).tolist() == [
        [0, 5],
        [1, 6],
    ]


@pytest.mark.parametrize(
    ("dtype", "carrier"), [("F64", "f8"), ("F32", "f4"), ("F16", "f2")]
)
def test_sum_leaves_the_sources_alone(dtype: str, carrier: str):
    bias = entry((3,), (3,), dtype=dtype, merge="sum")
    first = np.array([1, 2.5, -4], carrier)
    result = apply(bias, {"s0": first, "s1": np.array([0.5, 0.25, 4], carrier)})
    assert result.dtype == first.dtype
    assert result.tolist() == [1.5, 2.75, 0]
    assert first.tolist() == [1, 2.5, -4]


def test_gru_bias_adds_all_but_the_last_third():
    bias = entry((6,), (6,), dtype="F32", merge="gru_bias")
    first = np.arange(6, dtype=np.float32)
    second = np.full(6, 10, np.float32)
    made = apply(bias, {"s0": first, "s1": second})
    assert made.tolist() == [10, 11, 12, 13, 4, 5]
    with pytest.raises(ValueError, match="cannot merge"):
        entry((4,), (4,), dtype="F32", merge="gru_bias")


def test_sum_of_bf16_rounds_to_nearest_even():
    # Steps of bfloat16 are 2**-7 in [1, 2): halves of a step go to the even neighbour
    step = 2.0**-7
    first = bf16(1, 1 + step, 1, 1 + step, 3, -1)
    second = bf16(step / 2, step / 2, step * 0.75, step * 0.25, 2.0**-20, -step / 2)
    bias = entry((6,), (6,), dtype="BF16", merge="sum")
    result = apply(bias, {"s0": first, "s1": second})
    assert result.dtype == np.uint16
    assert decoded(result) == [1, 1 + 2 * step, 1 + step, 1 + step, 3, -1]


def test_sum_of_bf16_at_the_edges():
    inf = math.inf
    largest = decoded(np.array([0x7F7F], np.uint16))[0]
    first = bf16(largest, inf, inf, 0.0, 2.0**-133)
    second = bf16(largest, 1, -inf, -0.0, 2.0**-133)
    bias = entry((5,), (5,), dtype="BF16", merge="sum")
    got = decoded(apply(bias, {"s0": first, "s1": second}))
    assert got[:2] == [inf, inf]
    assert math.isnan(got[2])
    assert got[3:] == [0.0, 2.0**-132]
    # All mantissa bits set: a carry would wrap round to zero
    nan = np.array([0x7FFF, 0xFFFF], np.uint16)
    two = entry((2,), (2,), dtype="BF16", merge="sum")
    assert all(map(math.isnan, decoded(apply(two, {"s0": nan, "s1": nan}))))


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), min_size=1))
def test_sum_of_bf16_against_exact_arithmetic(pairs: list[tuple[int, int]]):
    first, second = np.array(pairs, np.uint16).T.copy()
    bias = entry(first.shape, first.shape, dtype="BF16", merge="sum")
    result = apply(bias, {"s0": first, "s1": second})
    everything = np.arange(0x7F80, dtype=np.uint16)
    grid = np.array(decoded(everything), np.float64)
    for a, b, got in zip(decoded(first), decoded(second), decoded(result), strict=True):
        exact = a + b
        if math.isnan(exact) or math.isinf(exact):
            assert math.isnan(got) if math.isnan(exact) else got == exact
            continue
        if abs(exact) >= grid[-1] + (grid[-1] - grid[-2]) / 2:
            assert math.isinf(got) and got * exact > 0
            continue
        nearest = np.abs(grid - abs(exact)).min()
        assert abs(abs(got) - abs(exact)) == nearest
        ties = np.flatnonzero(np.abs(grid - abs(exact)) == nearest)
        if len(ties) == 2:
            even = next(bits for bits in ties if bits % 2 == 0)
            assert abs(got) == grid[even]


@pytest.mark.parametrize(
    ("shapes", "fields", "message"),
    [
        ([(2, 3)], {"steps": (("transpose", (0, 0)),)}, "does not fit"),
        ([(2, 3)], {"steps": (("transpose", (0, 1, 2)),)}, "does not fit"),
        ([(2, 3)], {"steps": (("transpose", (-1, 0)),)}, "does not fit"),
        ([(2, 3)], {"steps": (("reshape", (7,)),)}, "does not fit"),
        ([(2, 3)], {"steps": (("reshape", (-2, -3)),)}, "does not fit"),
        ([(2, 3)], {"steps": (("slice", 2, 0, 1),)}, "does not fit"),
        ([(2, 3)], {"steps": (("slice", 0, 1, 3),)}, "does not fit"),
        ([(2, 3)], {"steps": (("slice", 0, 2, 1),)}, "does not fit"),
        ([(2, 3)], {"steps": (("slice", 0, -1, 1),)}, "does not fit"),
        ([(2, 3)], {"steps": (("flip", 0),)}, "does not fit"),
        ([(2, 3)], {"dtype": "F31"}, "unknown dtype 'F31'"),
        ([], {}, "0 sources, 0 shapes"),
        ([(2,), (2,)], {}, "cannot merge"),
        ([(2,), (2,)], {"merge": "mean"}, "cannot merge"),
        ([(2,), (3,)], {"merge": "sum"}, "cannot merge"),
        ([(2,), (2,)], {"merge": "sum", "dtype": "F8_E4M3"}, "cannot merge"),
        ([(2,), (2,)], {"merge": "concat", "axis": 1}, "cannot merge"),
        ([(2, 3), (2, 4)], {"merge": "concat"}, "cannot merge"),
        ([(2,), (2,)], {"merge": "stack", "axis": 2}, "cannot merge"),
    ],
)
def test_invalid_entries(shapes: Any, fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^weight 'w': .*{message}"):
        entry(*shapes, **fields)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"weight 's0' is missing, 'w' is made of it"),
        (
            {"s0": np.zeros((3, 2), "f4")},
            r"weight 's0' is float32 \(3, 2\), expected float32 \(2, 3\)",
        ),
        (
            {"s0": np.zeros((2, 3), "f2")},
            r"weight 's0' is float16 \(2, 3\), expected float32 \(2, 3\)",
        ),
    ],
)
def test_sources_that_do_not_fit(arrays: dict[str, np.ndarray], message: str):
    with pytest.raises(InputError, match=message):
        apply(entry((2, 3)), arrays)


def test_plan_lists_the_tensors_in_order():
    plan = WeightPlan(
        (
            entry((2, 3), key="b", steps=(("transpose", (1, 0)),)),
            entry((), dtype="I64", key="a"),
        )
    )
    assert plan.tensors() == [("b", "F32", (3, 2)), ("a", "I64", ())]
    assert plan["a"].dtype == "I64"


def test_plan_round_trips_through_json():
    plan = WeightPlan(
        (
            entry(
                (8, 3, 2, 2), key="conv.weight", steps=(("transpose", (0, 2, 3, 1)),)
            ),
            entry((4,), (4,), key="lstm.bias", dtype="BF16", merge="sum"),
            entry((4, 2), key="q", steps=(("slice", 0, 0, 2), ("reshape", (4,)))),
        ),
        unused={"bn.num_batches_tracked": "only counts training steps"},
        aliases={"lm_head.weight": "s0"},
    )
    text = plan.to_json()
    assert WeightPlan.from_json(text) == plan
    assert WeightPlan.from_json(text).to_json() == text
    assert WeightPlan.from_json(WeightPlan(()).to_json()) == WeightPlan(())


def test_plan_refuses_duplicate_keys():
    with pytest.raises(ValueError, match=r"occur twice in the weight plan: \['w'\]"):
        WeightPlan((entry((2,)), entry((3,), key="v"), entry((2,))))


def test_plan_refuses_contradictions():
    one = (entry((2,)),)
    with pytest.raises(ValueError, match=r"not in the plan: \['gone'\]"):
        WeightPlan(one, aliases={"tied": "gone"})
    with pytest.raises(ValueError, match=r"listed as unused: \['s0'\]"):
        WeightPlan(one, unused={"s0": "a buffer"})
    with pytest.raises(ValueError, match=r"listed as unused: \['tied'\]"):
        WeightPlan(one, unused={"tied": "a buffer"}, aliases={"tied": "s0"})
    with pytest.raises(ValueError, match=r"listed as aliases: \['s0'\]"):
        WeightPlan(one, aliases={"s0": "s0"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a weight plan: Expecting property name"),
        ("[]", "not a weight plan: list indices"),
        ("{}", "not a weight plan: no 'entries'"),
        ('{"entries": [1], "unused": {}, "aliases": {}}', "must be a mapping"),
        ('{"entries": [{"key": "w"}], "unused": {}, "aliases": {}}', "missing 3"),
        ('{"entries": [], "unused": [], "aliases": {}}', "not a weight plan: "),
    ],
)
def test_broken_json_is_refused(text: str, message: str):
    with pytest.raises(InputError, match=message):
        WeightPlan.from_json(text)
