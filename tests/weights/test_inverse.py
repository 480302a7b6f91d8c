"""The way back: what a plan makes, undone bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.weights.test_plan import entry, numbered, stepped
from tests.weights.test_safetensors import random_bits
from torch2mlx.errors import InputError
from torch2mlx.weights import DTYPES, Inverse, WeightEntry, WeightPlan, apply
from torch2mlx.weights.inverse import lossy_sources

Arrays = dict[str, np.ndarray]


def made(plan: WeightPlan, sources: Arrays) -> Arrays:
    return {one.key: apply(one, sources) for one in plan.entries}


def returned(plan: WeightPlan, sources: Arrays, parts: Arrays | None = None) -> Arrays:
    return dict(Inverse(plan, made(plan, sources), parts))


def check(plan: WeightPlan, sources: Arrays, parts: Arrays | None = None) -> None:
    back = returned(plan, sources, parts)
    assert back.keys() == sources.keys()
    for key, array in sources.items():
        assert back[key].dtype == array.dtype and back[key].shape == array.shape
        assert back[key].tobytes() == array.tobytes()


@given(stepped())
def test_any_steps(case: tuple[WeightEntry, np.ndarray]):
    one, index = case
    plan = WeightPlan((one,))
    source = {"s0": numbered(one.shapes[0])}
    if set(index.ravel().tolist()) == set(range(source["s0"].size)):
        check(plan, source)
        assert lossy_sources(plan) == []
    else:
        assert lossy_sources(plan) == ["s0"]
        with pytest.raises(
            InputError, match="'s0' cannot be restored: the model holds"
        ):
            returned(plan, source)
        check(plan, source, source)


def test_nothing_is_copied_for_a_transpose():
    one = entry((8, 3, 5, 7), steps=(("transpose", (0, 2, 3, 1)),))
    arrays = {"w": numbered((8, 5, 7, 3))}
    back = Inverse(WeightPlan((one,)), arrays)["s0"]
    assert np.shares_memory(back, arrays["w"])
    assert back[4, 1, 2, 6] == arrays["w"][4, 2, 6, 1]


@pytest.mark.parametrize(
    ("merge", "axis"), [("concat", 0), ("concat", 1), ("stack", 0), ("stack", 1)]
)
def test_merged_arrays_are_parted(merge: str, axis: int):
    one = entry((4, 3), (4, 3), merge=merge, axis=axis, steps=(("reshape", (24,)),))
    check(WeightPlan((one,)), {"s0": numbered((4, 3)), "s1": numbered((4, 3), 50)})


def parted(*steps: tuple[tuple[Any, ...], ...]) -> WeightPlan:
    return WeightPlan(
        tuple(entry((6, 4), key=f"w{i}", steps=s) for i, s in enumerate(steps))
    )


def test_an_array_cut_in_pieces_is_put_together():
    turned = ("transpose", (1, 0))
    check(
        parted((("slice", 0, 0, 2),), (("slice", 0, 2, 6), turned)),
        {"s0": numbered((6, 4))},
    )
    check(
        parted((turned, ("slice", 0, 0, 1)), (turned, ("slice", 0, 1, 4))),
        {"s0": numbered((6, 4))},
    )


def test_what_was_left_out_comes_from_the_parts():
    plan = parted((("slice", 0, 0, 2),))
    sources = {"s0": numbered((6, 4))}
    check(plan, sources, sources)
    trained = {"w0": -numbered((2, 4))}
    back = Inverse(plan, trained, sources)["s0"]
    assert back[:2].tolist() == trained["w0"].tolist()
    assert back[2:].tolist() == sources["s0"][2:].tolist()


def random(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def test_sums_have_their_parts_back_until_they_are_trained():
    plan = WeightPlan((entry((5,), (5,), merge="sum", key="bias"),))
    sources = {"s0": random(5), "s1": random(5) * 3}
    assert lossy_sources(plan) == ["s0", "s1"]
    check(plan, sources, sources)
    for parts, array in ((None, made(plan, sources)["bias"]), (sources, random(5) + 1)):
        back = Inverse(plan, {"bias": array}, parts)
        assert back["s0"].tobytes() == array.tobytes()
        assert back["s1"].tolist() == [0] * 5
        assert made(plan, dict(back))["bias"].tobytes() == array.tobytes()


def test_sums_in_another_precision():
    plan = WeightPlan((entry((5,), (5,), merge="sum", key="bias"),)).cast("BF16")
    sources = {"s0": random(5), "s1": random(5) * 3}
    check(plan, sources, sources)


def test_the_biases_of_a_gru():
    plan = WeightPlan(
        (
            WeightEntry("b", ("ih", "hh"), "F32", ((6,), (6,)), merge="gru_bias"),
            WeightEntry("bhn", ("hh",), "F32", ((6,),), (("slice", 0, 4, 6),)),
        )
    )
    sources = {"ih": random(6), "hh": random(6) * 3}
    assert lossy_sources(plan) == ["hh", "ih"]
    check(plan, sources, sources)
    trained = {"b": random(6) + 1, "bhn": random(2) - 1}
    for parts in (None, sources):
        back = Inverse(plan, trained, parts)
        assert back["hh"].tolist() == [0] * 4 + trained["bhn"].tolist()
        again = made(plan, dict(back))
        assert again["b"].tobytes() == trained["b"].tobytes()
        assert again["bhn"].tobytes() == trained["bhn"].tobytes()


def test_tied_weights_get_all_their_names():
    plan = WeightPlan(
        (entry((3, 2), key="embed.weight"),),
        unused={"count": "a counter"},
        aliases={"head.weight": "s0"},
    )
    array = numbered((3, 2))
    back = Inverse(plan, {"embed.weight": array})
    assert sorted(back) == ["head.weight", "s0"]
    assert np.shares_memory(back["head.weight"], array)
    assert back.owner("head.weight") == "s0" and back.shape("head.weight") == (3, 2)


def test_one_source_of_two_arrays():
    plan = WeightPlan(
        (entry((3, 2), key="a"), entry((3, 2), key="b", steps=(("transpose", (1, 0)),)))
    )
    check(plan, {"s0": numbered((3, 2))})
    arrays = made(plan, {"s0": numbered((3, 2))})
    arrays["b"] = arrays["b"] + 1
    with pytest.raises(
        InputError, match="^'a' and 'b' differ, but both are 's0' in PyTorch$"
    ):
        Inverse(plan, arrays)["s0"]


def test_constants_are_not_returned():
    plan = WeightPlan((entry((3,), key="table"),), constants=("s0",))
    assert list(Inverse(plan, {"table": numbered((3,))})) == []
    assert WeightPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", ["F32", "BF16", "F16"])
def test_trained_in_another_precision(name: str):
    """The arrays have the dtype that the folder gives them, whatever the plan says."""
    plan = WeightPlan((entry((4, 3), steps=(("transpose", (1, 0)),)),))
    carrier = {"F32": "f4", "BF16": "u2", "F16": "f2"}[name]
    array = np.arange(12).reshape(3, 4).astype(carrier)
    assert Inverse(plan, {"w": array})["s0"].tolist() == array.T.tolist()


def test_arrays_that_are_not_those_of_the_plan():
    plan = WeightPlan((entry((3, 2)),))
    array = numbered((3, 2))
    with pytest.raises(InputError, match="^the folder lacks the weights 'w'$"):
        Inverse(plan, {})
    with pytest.raises(
        InputError, match="holds, unknown to its plan, the weights 'v'$"
    ):
        Inverse(plan, {"w": array, "v": array})
    many = {f"x{i}": array for i in range(9)}
    with pytest.raises(InputError, match="'x4' and 4 more$"):
        Inverse(plan, {"w": array} | many)
    with pytest.raises(
        InputError, match=r"^weight 'w' has the shape \(2, 3\), expected \(3, 2\)$"
    ):
        Inverse(plan, {"w": array.T})["s0"]


@pytest.mark.parametrize("name", DTYPES)
def test_every_bit_pattern(name: str):
    plan = WeightPlan(
        (entry((5, 4, 3), dtype=name, steps=(("transpose", (2, 0, 1)),)),)
    )
    check(plan, {"s0": random_bits(name, (5, 4, 3))})


def test_what_was_folded_does_not_come_back():
    plan = WeightPlan(
        (entry((4, 3), (4, 1), key="conv.weight", expression=(("multiply", (0, 1)),)),)
    )
    sources = {"s0": random(4, 3), "s1": random(4, 1)}
    assert lossy_sources(plan) == []
    with pytest.raises(InputError, match=r"computed from .* weights, 'conv\.weight'"):
        returned(plan, sources)
