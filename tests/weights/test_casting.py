"""Other precisions, bit by bit as PyTorch rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.weights.test_plan import entry
from torch2mlx.errors import InputError
from torch2mlx.weights import DTYPES, WeightPlan, apply, casting
from torch2mlx.weights.casting import FLOATS, cast

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
PAIRS = [(a, b) for a in FLOATS for b in FLOATS]


def tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    made = torch.from_numpy(array.copy())
    return made.view(torch.bfloat16) if dtype == "BF16" else made


@pytest.mark.parametrize(("source", "target"), PAIRS)
@given(data=st.data())
def test_as_pytorch_rounds(source: str, target: str, data: st.DataObject):
    bits = DTYPES[source].itemsize * 8
    raw = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=50))
    array = np.array(raw, f"u{bits // 8}").view(DTYPES[source])
    values = tensor(array, source)
    wanted = values.to(TORCH[target])
    overflow = (wanted.isinf() & values.isfinite()).any()
    if overflow:
        with pytest.raises(OverflowError, match="is too large for it"):
            cast(array, source, target)
        return
    found = tensor(cast(array, source, target), target)
    assert found.dtype == TORCH[target]
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.nan_to_num(0), wanted.nan_to_num(0))


def test_every_bfloat16_and_back():
    every = np.arange(1 << 16, dtype=np.uint16)
    wide = cast(every, "BF16", "F32")
    assert torch.equal(
        torch.from_numpy(wide).nan_to_num(0),
        tensor(every, "BF16").float().nan_to_num(0),
    )
    back = cast(wide, "F32", "BF16")
    is_nan = np.isnan(wide)
    assert np.array_equal(back[~is_nan], every[~is_nan])
    assert np.isnan(cast(back[is_nan], "BF16", "F32")).all()


def test_in_blocks_and_any_strides(monkeypatch: pytest.MonkeyPatch):
    array = (
        np.random.default_rng(0).normal(size=(7, 5, 3)).astype("f4").transpose(2, 0, 1)
    )
    whole = cast(array, "F32", "BF16")
    monkeypatch.setattr(casting, "BLOCK", 11)
    assert cast(array, "F32", "BF16").tolist() == whole.tolist()
    assert cast(np.array(1.5, "f4"), "F32", "F16").shape == ()


def test_a_plan_in_another_precision():
    plan = WeightPlan((entry((2, 3)), entry((2,), dtype="I64", key="count"))).cast(
        "BF16"
    )
    assert plan.tensors() == [("w", "BF16", (2, 3)), ("count", "I64", (2,))]
    assert WeightPlan.from_json(plan.to_json()) == plan
    made = apply(plan["w"], {"s0": np.ones((2, 3), "f4")})
    assert made.tolist() == [[0x3F80] * 3] * 2
    half = plan.cast("F16")
    with pytest.raises(
        InputError, match="^weight 'w' cannot be F16: 7e.04 is too large"
    ):
        apply(half["w"], {"s0": np.full((2, 3), 7e4, "f4")})
    with pytest.raises(ValueError, match="cannot make F16 of I64"):
        entry((2,), dtype="I64", target="F16")
    with pytest.raises(ValueError, match="unknown dtype 'F31'"):
        entry((2,), target="F31")


def test_a_double_beyond_float32_does_not_fit_bfloat16():
    with pytest.raises(OverflowError, match=r"1e\+39 is too large"):
        cast(np.array([1.0, 1e39]), "F64", "BF16")
