"""The comparison of single outputs."""

from __future__ import annotations

from collections import OrderedDict

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch2mlx.verify.compare import Tolerance, compare_outputs, deviation

TOLERANCE = Tolerance(1e-4, 1e-3)


def errors(want, got, perms=()):
    return compare_outputs(want, got, perms, TOLERANCE)


def test_the_limit_grows_with_the_largest_value():
    want = torch.tensor([0.0, 100.0])
    (close,) = errors(want, mx.array([0.1, 100.0]))
    assert close.ok
    assert close.allowed == pytest.approx(1e-4 + 0.1)
    assert close.max_value == 100
    (far,) = errors(want, mx.array([0.2, 100.0]))
    assert not far.ok
    assert far.max_error == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("want", "got", "why"),
    [
        (torch.zeros(2), mx.zeros((2, 1)), "has shape [2, 1], not [2]"),
        (torch.zeros(2), mx.zeros((2,), mx.float16), "has dtype"),
        (torch.zeros(2).half(), mx.zeros((2,)), "has dtype"),
        (torch.zeros(2), mx.zeros((2,), mx.int32), "has dtype"),
        (torch.zeros(2, dtype=torch.bool), mx.zeros((2,), mx.int32), "has dtype"),
        (torch.tensor([1, 2]), mx.array([1, 3]), "differs by 1"),
        (torch.tensor([True]), mx.array([False]), "differs by 1"),
        (torch.tensor([np.nan, 1]), mx.array([1, np.nan]), "has NaN or infinity"),
        (torch.tensor([np.inf]), mx.array([-np.inf]), "has NaN or infinity"),
        (torch.tensor([1.0]), mx.array([np.nan]), "has NaN or infinity"),
        (torch.zeros(2), None, "is None instead of an array"),
        (None, mx.zeros((2,)), "instead of None"),
        ((torch.zeros(2),), [mx.zeros((2,))], "is a list of 1 instead of a tuple of 1"),
        ([torch.zeros(2)], [], "is a list of 0 instead of a list of 1"),
        (
            {"a": torch.zeros(2)},
            {"b": mx.zeros((2,))},
            "is a dict of b instead of a dict of a",
        ),
        ({"a": torch.zeros(2)}, mx.zeros((2,)), "is an array instead of a dict of a"),
    ],
)
def test_what_differs(want, got, why):
    (error,) = errors(want, got)
    assert not error.ok
    assert why in error.why


@pytest.mark.parametrize(
    ("want", "got"),
    [
        (torch.tensor([1, 2]), mx.array([1, 2], mx.int32)),
        (torch.tensor([np.nan, np.inf, 1]), mx.array([np.nan, np.inf, 1])),
        (torch.tensor([1 + 2j]), mx.array([1 + 2j])),
        (torch.ones(2).bfloat16(), mx.ones((2,), mx.bfloat16)),
        (torch.zeros(0, 3), mx.zeros((0, 3))),
        (OrderedDict(a=torch.ones(())), {"a": mx.array(1.0)}),
        (
            torch.return_types.max((torch.ones(1), torch.zeros(1).long())),
            (mx.ones(1), mx.array([0])),
        ),
        (None, None),
    ],
)
def test_what_agrees(want, got):
    found = errors(want, got)
    assert found
    assert all(error.ok for error in found)


def test_an_output_stored_channels_last():
    want = torch.randn(2, 3, 4, 4)
    got = mx.array(want.permute(0, 2, 3, 1).numpy())
    assert errors(want, got, [(0, 2, 3, 1)])[0].ok
    assert not errors(want, got, [None])[0].ok


def test_labels_are_the_keys():
    one = torch.zeros(1)
    want = {"a": (one, one), "b": {"c": one}}
    got = {"a": (mx.zeros((1,)), mx.ones((1,))), "b": {"c": mx.zeros((1,))}}
    found = errors(want, got)
    assert [error.label for error in found] == ["a[0]", "a[1]", "b['c']"]
    assert [error.ok for error in found] == [True, False, True]


def test_deviation_does_not_know_the_layout():
    image, vector = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    stored = mx.array(image.permute(0, 2, 3, 1).numpy())
    assert (
        deviation([vector, image], [stored, mx.array(vector.numpy())], TOLERANCE)
        is None
    )
    assert deviation([vector, image], [stored + 1], TOLERANCE) == pytest.approx(
        1, rel=1e-5
    )
    assert deviation([vector], [stored], TOLERANCE) is None
