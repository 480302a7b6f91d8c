"""Two plans, one after the other, as one; and arrays that are stacked in groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from torch2mlx.errors import InputError
from torch2mlx.weights import Inverse, WeightEntry, WeightPlan, apply
from torch2mlx.weights.composition import composed, is_by_name, simplified
from torch2mlx.weights.inverse import lossy_sources

Arrays = dict[str, np.ndarray[Any, Any]]


def one(key: str, source: str, shape: tuple[int, ...], **fields: Any) -> WeightEntry:
    return WeightEntry(key, (source,), "F32", (shape,), **fields)


def experts(count: int = 3) -> WeightEntry:
    """Each is two arrays, one above the other."""
    sources = tuple(f"{i}.{part}" for i in range(count) for part in ("w1", "w3"))
    shapes = ((4, 5), (2, 5)) * count
    return WeightEntry("experts", sources, "F32", shapes, merge="stack", group=2)


def numbers(plan: WeightPlan) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        key: rng.normal(size=shape).astype("f4")
        for key, (_, shape) in plan.sources().items()
    }


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [(), (("transpose", (2, 0, 1)),)])
def test_groups_are_stacked(axis: int, steps: tuple[Any, ...]):
    entry = replace(experts(), axis=axis, steps=steps)
    plan = WeightPlan((entry,))
    arrays = numbers(plan)
    pairs = [np.concatenate([arrays[f"{i}.w1"], arrays[f"{i}.w3"]]) for i in range(3)]
    wanted = np.stack(pairs, axis=axis)
    wanted = wanted.transpose(2, 0, 1) if steps else wanted
    found = apply(entry, arrays)
    assert found.shape == entry.out_shape == wanted.shape
    assert np.array_equal(found, wanted)
    back = Inverse(plan, {"experts": found})
    assert back.keys() == arrays.keys() and lossy_sources(plan) == []
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)
    assert WeightPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"group": 4}, r"cannot concatenate .* in groups of 4"),
        ({"shapes": ((4, 5), (2, 6)) * 3}, r"cannot concatenate .* in groups of 2"),
        ({"shapes": ((4, 5), (2, 5)) * 2 + ((4, 5), (3, 5))}, "cannot merge F32"),
        ({"merge": "concat"}, "groups of 2 are not for concat"),
    ],
)
def test_groups_that_do_not_fit(fields: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=f"weight 'experts': {why}"):
        replace(experts(), **fields)


def both(plan: WeightPlan, first: WeightPlan) -> WeightPlan:
    """The two as one, which gives what one after the other does, and its inverse the checkpoint."""
    found = composed(plan, first)
    assert found is not None
    arrays = numbers(found)
    state = {entry.key: apply(entry, arrays) for entry in first.entries}
    for entry in found.entries:
        assert np.array_equal(apply(entry, arrays), apply(plan[entry.key], state))
    back = Inverse(found, {e.key: apply(e, arrays) for e in found.entries})
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)
    return found


def test_names_and_steps():
    first = WeightPlan(
        (
            one("model.conv", "stem", (2, 3, 4, 5)),
            one("model.q", "qkv", (6, 4), steps=(("slice", 0, 0, 2),)),
            one("model.kv", "qkv", (6, 4), steps=(("slice", 0, 2, 6),)),
            one("model.bias", "b", (2,)),
            experts(),
        )
    )
    plan = WeightPlan(
        (
            one(
                "conv", "model.conv", (2, 3, 4, 5), steps=(("transpose", (0, 2, 3, 1)),)
            ),
            one("q", "model.q", (2, 4), steps=(("transpose", (1, 0)),)),
            one("kv", "model.kv", (4, 4)),
            one("bias", "model.bias", (2,)),
            one("experts", "experts", (3, 6, 5), steps=(("transpose", (0, 2, 1)),)),
        )
    )
    found = both(plan, first)
    assert found["q"].steps == (("slice", 0, 0, 2), ("transpose", (1, 0)))
    assert found["experts"].group == 2 and found["experts"].sources[1] == "0.w3"
    assert found["conv"].sources == ("stem",)


def test_several_arrays_under_other_names():
    first = WeightPlan((one("a", "x", (2,)), one("b", "y", (2,))))
    plan = WeightPlan(
        (WeightEntry("ab", ("a", "b"), "F32", ((2,), (2,)), merge="stack"),)
    )
    assert both(plan, first)["ab"].sources == ("x", "y")


def test_cuts_that_are_merged_are_two_steps():
    first = WeightPlan(
        tuple(
            one(n, "ab", (4,), steps=(("slice", 0, i, i + 2),))
            for n, i in (("a", 0), ("b", 2))
        )
    )
    merged = WeightEntry("ba", ("b", "a"), "F32", ((2,), (2,)), merge="concat")
    assert composed(WeightPlan((merged,)), first) is None


def test_ties_and_what_is_not_used():
    """A tied weight may be there under either name, or both."""
    plan = WeightPlan(
        (one("embed", "embed", (3, 2)), one("table", "table", (2,))),
        {"left": "no operator of the model reads it", "gone": "the same"},
        {"head": "embed"},
        ("table",),
    )
    left = one("left", "old.left", (2,))
    unused = {"old.extra": "transformers does not load it"}
    reads = "no operator of the model reads it"
    for keys, aliases, source in (
        (("embed", "head"), {"old.head": "old.embed"}, "old.embed"),
        (("embed",), {"head": "old.embed"}, "old.embed"),
        (("head",), {}, "old.head"),
    ):
        entries = [one(key, f"old.{key}", (3, 2)) for key in keys]
        found = composed(plan, WeightPlan((*entries, left), unused))
        assert found is not None
        assert found.aliases == aliases and found["embed"].sources == (source,)
        assert found.unused == {"old.left": reads, **unused}
        assert found.constants == ("table",)


def test_a_cast_comes_along():
    first = WeightPlan((one("a", "x", (2,), target="BF16"),))
    plan = WeightPlan((WeightEntry("a", ("a",), "BF16", ((2,),)),))
    found = composed(plan, first)
    assert found is not None
    assert (found["a"].dtype, found["a"].target) == ("F32", "BF16")


def test_a_constant_of_the_same_name_is_not_taken_for_a_weight():
    first = WeightPlan((one("a", "table", (2,)),))
    plan = WeightPlan(
        (one("a", "a", (2,)), one("t", "table", (2,))), constants=("table",)
    )
    assert composed(plan, first) is None


def test_by_name():
    plain = WeightPlan((one("a", "a", (2,)),))
    assert is_by_name(plain)
    assert not is_by_name(WeightPlan(plain.entries, {"b": "extra"}))
    assert not is_by_name(WeightPlan((one("a", "b", (2,)),)))
    assert not is_by_name(WeightPlan((one("a", "a", (2,), target="F16"),)))


def test_steps_that_undo_each_other():
    entry = one("a", "a", (2, 3, 4))
    turn, back = ("transpose", (2, 0, 1)), ("transpose", (1, 2, 0))
    assert simplified([turn, back], entry) == ()
    assert simplified([turn, turn], entry) == (("transpose", (1, 2, 0)),)
    flat, whole = ("reshape", (24,)), ("reshape", (2, 3, 4))
    assert simplified([flat, whole, turn], entry) in ((whole, turn), (turn,))
    assert simplified([whole, flat], entry) == (flat,)


def test_the_missing_are_named():
    arrays = numbers(WeightPlan((experts(),)))
    del arrays["1.w3"]
    with pytest.raises(InputError, match="weight '1.w3' is missing, 'experts' is made"):
        apply(experts(), arrays)
