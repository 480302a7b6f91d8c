"""A layer of weights and its BatchNorm as one: against PyTorch, for every combination of sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torch2mlx.weights import WeightEntry, WeightPlan, apply
from torch2mlx.weights.folding import SCALE, SHIFT

EPS = 1e-3
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def made(
    merge: str, tensors: list[torch.Tensor], dtype: str = "F32", axis: int = 0
) -> Any:
    keys = tuple(f"s{i}" for i in range(len(tensors)))
    shapes = tuple(tuple(t.shape) for t in tensors)
    entry = WeightEntry(
        "w",
        keys,
        dtype,
        shapes,
        (),
        merge,
        axis,
        None if dtype != "F64" else "F32",
        EPS,
    )
    plan = WeightPlan((entry,))
    assert WeightPlan.from_json(plan.to_json()) == plan
    arrays = [
        t.view(torch.uint16).numpy() if dtype == "BF16" else t.numpy() for t in tensors
    ]
    result = apply(entry, dict(zip(keys, arrays, strict=True)))
    assert result.shape == entry.out_shape
    return result


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_convolution(affine: bool, bias: bool, transposed: bool) -> None:
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    conv = kind(3, 4, (2, 5), bias=bias)
    norm = torch.nn.BatchNorm2d(4, EPS, affine=affine).eval()
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        assert tensor is not None
        torch.nn.init.uniform_(tensor, 0.5, 2.0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = random(2, 3, 6, 7)
    with torch.no_grad():
        expected = norm(conv(x)).numpy()
        weights = [norm.weight, norm.bias] if affine else []
        scale = [conv.weight, *weights[:1], norm.running_var]
        shift = [*([conv.bias] if bias else []), *weights]
        shift += [norm.running_mean, norm.running_var]
        conv.weight.copy_(
            torch.from_numpy(
                made(SCALE, [t.detach() for t in scale], axis=int(transposed))
            )
        )
        conv.bias = torch.nn.Parameter(
            torch.from_numpy(made(SHIFT, [t.detach().clone() for t in shift]))
        )
        np.testing.assert_allclose(conv(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_rounded_once() -> None:
    weight, variance = random(4, 3), random(4).abs()
    halves = [weight.bfloat16(), variance.bfloat16()]
    exact = halves[0].double() / (halves[1].double() + EPS).sqrt()[:, None]
    raw = made(SCALE, halves, "BF16")
    assert raw.tolist() == exact.float().bfloat16().view(torch.uint16).tolist()


@pytest.mark.parametrize(
    ("merge", "shapes"),
    [
        (SCALE, [(4, 3), (3,)]),
        (SCALE, [(4, 3), (4, 1)]),
        (SCALE, [(4, 3), (4,), (4,), (4,)]),
        (SHIFT, [(4,), (3,)]),
        (SHIFT, [(4,)]),
    ],
)
def test_sources_that_do_not_fit(merge: str, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="cannot merge"):
        made(merge, [random(*shape) for shape in shapes])
