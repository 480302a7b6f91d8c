"""Scaled dot product attention against PyTorch: mask kinds, lengths, heads and ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered
from torch2mlx.errors import UnsupportedError


def qkv(
    *lead: int, queries: int = 5, keys: int = 7, dim: int = 8
) -> tuple[torch.Tensor, ...]:
    """Query, key and value [*lead, L, dim], the value of another dim."""
    return (
        torch.randn(*lead, queries, dim),
        torch.randn(*lead, keys, dim),
        torch.randn(*lead, keys, dim // 2),
    )


def attend(**options: Any) -> Any:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(
        q, k, v, *mask, **options
    )


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("options", [{}, {"scale": 0.25}, {"is_causal": True}])
def test_ranks(lead: tuple[int, ...], options: dict[str, Any]) -> None:
    run_lowered(attend(**options), qkv(*lead))


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (5, 7), (7, 5), (1, 6)])
def test_causal_starts_at_the_first_key(queries: int, keys: int) -> None:
    args = qkv(2, 3, queries=queries, keys=keys)
    run_lowered(attend(is_causal=True), args)


def test_causal_of_equal_lengths_is_by_name() -> None:
    x = torch.randn(2, 3, 5, 8)
    graph = lowered(
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), (x,)
    ).graph
    assert [n.kwargs["mask"] for n in graph.nodes if "mask" in n.kwargs] == ["causal"]


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 7), (2, 3, 5, 7), (2, 1, 1, 7)])
@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_masks(shape: tuple[int, ...], kind: str) -> None:
    mask = torch.rand(shape) > 0.4
    mask[..., 0] = True
    if kind == "additive":
        mask = torch.zeros(shape).masked_fill(~mask, -float("inf"))
    run_lowered(attend(), (*qkv(2, 3), mask))


def test_queries_without_any_key_give_zero() -> None:
    mask = torch.rand(2, 1, 5, 7) > 0.4
    mask[0, 0, 2] = False
    run_lowered(attend(), (*qkv(2, 3), mask))


def test_masks_of_three_axes() -> None:
    mask = torch.rand(3, 5, 7) > 0.3
    mask[..., 0] = True
    run_lowered(attend(), (*qkv(3), mask))
    run_lowered(attend(), (*qkv(2, 3), mask))


def test_fewer_key_heads() -> None:
    q = torch.randn(2, 6, 5, 8)
    k, v = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    run_lowered(attend(enable_gqa=True), (q, k, v))
    run_lowered(attend(enable_gqa=True, is_causal=True), (q, k, v))


def test_half_precision_with_a_mask() -> None:
    args = [x.half() for x in qkv(2, 3)]
    run_lowered(attend(), (*args, torch.randn(5, 7).half()), tolerance=5e-3)


def test_other_sizes() -> None:
    run_lowered(attend(is_causal=True), qkv(2, 3), qkv(4, 3, queries=9, keys=6))


def test_dropout_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="dropout_p"):
        lowered(attend(dropout_p=0.5), qkv(2, 3))
