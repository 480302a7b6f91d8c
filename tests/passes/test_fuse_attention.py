"""Softmax attention that is written out becomes the operator, with the least mask that says the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused, left_alone
from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments

LOW = torch.finfo(torch.float32).min
SDPA = "scaled_dot_product_attention"


def qkv(batch: int, queries: int, keys: int, heads: int = 2) -> tuple[Any, ...]:
    return (
        torch.randn(batch, heads, queries, 4),
        torch.randn(batch, heads, keys, 4),
        torch.randn(batch, heads, keys, 4),
    )


def attention(captured: Captured, name: str = SDPA) -> dict[str, Any]:
    """The arguments of the only call of `name`."""
    (node,) = (n for n in captured.graph.nodes if n.name.startswith(name))
    return arguments(node)


FORMS: dict[str, Callable[..., Any]] = {
    "scaled": lambda q, k, v: (q @ k.mT * 4**-0.5).softmax(-1) @ v,
    "divided": lambda q, k, v: (q @ k.mT / math.sqrt(4)).softmax(-1) @ v,
    "transposed": lambda q, k, v: (q @ k.transpose(2, 3) * 0.5).softmax(3) @ v,
    "dropout": lambda q, k, v: functional.dropout(
        torch.softmax(q @ k.transpose(-1, -2) / 2, -1), 0.1, False
    )
    @ v,
    "keys": lambda q, k, v: torch.matmul(
        functional.softmax(0.5 * torch.matmul(q, k.permute(0, 1, 3, 2)), dim=-1), v
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    args, others = qkv(2, 5, 5), qkv(3, 4, 7)
    captured = fused("attention", FORMS[form], args, others)
    assert ops(captured) == {SDPA: 1}
    assert attention(captured)["scale"] == 0.5
    assert [kind for kind, _ in decisions(captured, "attention")] == ["fused"]
    run_lowered(FORMS[form], args, others)


def test_three_axes() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)

    args = tuple(x[:, 0] for x in qkv(2, 3, 5))
    captured = fused("attention", function, args)
    assert ops(captured) == {SDPA: 1}
    assert attention(captured)["scale"] == 1
    run_lowered(function, args)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """The scores are float32 in the model, as they are in the operator."""

    def function(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.mT * 0.5
        return functional.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v

    args = tuple(x.to(dtype) for x in qkv(2, 5, 5))
    captured = fused("attention", function, args, tolerance=2e-2)
    assert ops(captured) == {SDPA: 1}
    run_lowered(function, args, tolerance=2e-2)


def test_added_masks() -> None:
    def function(q: Any, k: Any, v: Any, bias: Any, mask: Any) -> Any:
        return (q @ k.mT * 0.5 + bias + mask).softmax(-1) @ v

    args = (*qkv(2, 5, 7), torch.randn(2, 5, 7), torch.randn(2, 1, 1, 7))
    captured = fused("attention", function, args)
    assert ops(captured) == {"add": 1, SDPA: 1}
    run_lowered(function, args)


HIDING: dict[str, Callable[..., Any]] = {
    "masked_fill": lambda s, hidden: s.masked_fill(hidden, LOW),
    "where": lambda s, hidden: torch.where(hidden, LOW, s),
    "where not": lambda s, hidden: torch.where(~hidden, s, -math.inf),
}


@pytest.mark.parametrize("form", ["masked_fill", "where not"])
def test_hidden_scores(form: str) -> None:
    def function(q: Any, k: Any, v: Any, hidden: Any) -> Any:
        return HIDING[form](q @ k.mT * 0.5, hidden).softmax(-1) @ v

    hidden = torch.zeros(2, 1, 5, 7, dtype=torch.bool)
    hidden[1, 0, :, 3:] = True
    args = (*qkv(2, 5, 7), hidden)
    assert ops(fused("attention", function, args))[SDPA] == 1
    run_lowered(function, args)
    if form == "masked_fill":  # a query that sees nothing sees all alike
        run_lowered(function, (*args[:3], torch.ones_like(hidden)))


NEAR: dict[str, Callable[..., Any]] = {
    "axis": lambda q, k, v: (q @ k.mT).softmax(-2) @ v,
    "tanh": lambda q, k, v: torch.tanh(q @ k.mT).softmax(-1) @ v,
    "no softmax": lambda q, k, v: (q @ k.mT) @ v,
    "not so low": lambda q, k, v: (q @ k.mT)
    .masked_fill(k.sum() > 0, -100.0)
    .softmax(-1)
    @ v,
    "training": lambda q, k, v: functional.dropout((q @ k.mT).softmax(-1), 0.5, True)
    @ v
    * 0,
    "broadcast": lambda q, k, v: (q @ k[:1].mT).softmax(-1) @ v,
    "wider mask": lambda q, k, v: ((q[:, :1] @ k[:, :1].mT) + q[..., :1]).softmax(-1)
    @ v,
}


@pytest.mark.parametrize("scale", [0.5 + 1e-6, 0.25, -0.5])
def test_scales_that_are_not_of_the_size(scale: float) -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        return (q @ k.mT * scale).softmax(-1) @ v

    args = qkv(2, 5, 5)
    assert attention(fused("attention", function, args))["scale"] == scale
    run_lowered(function, args)


def test_keys_that_are_not_transposed() -> None:
    """The operator transposes them, so it gets their transpose."""

    def function(q: Any, k: Any, v: Any) -> Any:
        return (q @ k).softmax(-1) @ v

    args = qkv(2, 5, 4)
    assert ops(fused("attention", function, args)) == {"transpose": 1, SDPA: 1}
    run_lowered(function, args)


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    left_alone("attention", SDPA, NEAR[near], *qkv(2, 5, 5))


def test_a_mask_that_is_wider_than_the_queries() -> None:
    """In half precision its lowest numbers would be -inf."""

    def function(q: Any, k: Any, v: Any, mask: Any) -> Any:
        scores = (q @ k.mT).float() + mask
        return scores.softmax(-1).to(q.dtype) @ v

    args = tuple(x.to(torch.float16) for x in qkv(2, 5, 5))
    captured = fused("attention", function, (*args, torch.full((5, 5), LOW)))
    assert not ops(captured)[SDPA]
    why = "the mask has another dtype than the queries"
    assert decisions(captured, "attention") == [("declined", why)]


def test_weights_that_are_returned() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        weights = (q @ k.mT).softmax(-1)
        return weights @ v, weights

    captured = fused("attention", function, qkv(2, 5, 5), tolerance=0.0)
    assert not ops(captured)[SDPA]
    assert decisions(captured, "attention") == [
        ("declined", "`softmax` in it is used elsewhere too")
    ]


def rows_and_columns(q: Any, k: Any) -> tuple[Any, Any]:
    return torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None, :]


def test_an_additive_causal_mask() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = torch.arange(q.shape[2])[:, None], torch.arange(q.shape[2])
        mask = torch.where(columns <= rows, 0.0, LOW)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args, others = qkv(2, 5, 5), qkv(3, 7, 7)
    captured = fused("attention_mask", function, args, others)
    assert ops(captured) == {SDPA: 1}
    assert attention(captured)["is_causal"]
    run_lowered(function, args, others)


def test_a_sliding_window() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = torch.arange(q.shape[2])[:, None], torch.arange(q.shape[2])
        mask = (columns <= rows) & (columns > rows - 3)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args, others = qkv(2, 5, 5), qkv(3, 7, 7)
    captured = fused("attention_mask", function, args, others)
    assert ops(captured)["attention"] == 1
    run_lowered(function, args, others)


DISTANCES: dict[str, tuple[bool, Callable[[Any], Any]]] = {
    "at most": (True, lambda d: d.abs() <= 2),
    "less": (True, lambda d: d.abs() < 1),
    "off the diagonal": (True, lambda d: (d + 2).abs() <= 2),
    "never itself": (False, lambda d: (d + 2).abs() < 2),
    "far": (False, lambda d: d.abs() >= 2),
    "another rate": (False, lambda d: (d + torch.arange(d.shape[1])).abs() <= 2),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_distances(name: str) -> None:
    itself, near = DISTANCES[name]

    def function(q: Any, k: Any, v: Any) -> Any:
        positions = torch.arange(q.shape[2])
        mask = near(positions[:, None] - positions)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args, others = qkv(2, 5, 5), qkv(3, 7, 7)
    captured = fused("attention_mask", function, args, others)
    assert ops(captured)["attention"] == int(itself)
    run_lowered(function, args, others)


MASKS: dict[str, Callable[..., Any]] = {
    "strictly before": lambda r, c: c < r,
    "after some": lambda r, c: c >= r + 1,
    "not so low": lambda r, c: torch.where(c <= r, 0.0, -1e4),
    "not 0": lambda r, c: torch.where(c <= r, 1.0, LOW),
    "other way": lambda r, c: torch.where(c <= r, LOW, 0.0),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_stay(name: str) -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = rows_and_columns(q, k)
        return functional.scaled_dot_product_attention(
            q, k, v, MASKS[name](rows, columns)
        )

    captured = fused("attention_mask", function, qkv(2, 5, 5))
    assert attention(captured)["attn_mask"] is not None
    run_lowered(function, qkv(2, 5, 5))


def test_more_queries_than_keys() -> None:
    """The last queries see no key."""

    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = rows_and_columns(q, k)
        mask = (columns <= rows) & (columns > rows - 2)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = fused("attention_mask", function, qkv(2, 7, 4))
    assert not ops(captured)["attention"]
    run_lowered(function, qkv(2, 7, 4))


def test_values_in_the_mask() -> None:
    def function(q: Any, k: Any, v: Any, padding: Any) -> Any:
        rows, columns = rows_and_columns(q, k)
        mask = (columns <= rows) & padding[:, None, None, :]
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args = (*qkv(2, 5, 5), torch.ones(2, 5, dtype=torch.bool))
    captured = fused("attention_mask", function, args)
    why = "it depends on values whether a query sees any key"
    assert decisions(captured, "attention_mask") == [("declined", why)]


def scaled_before(x: Any, k: Any, v: Any) -> Any:
    """Queries are scaled, and then become heads."""
    q = (x * 0.25).reshape(*x.shape[:2], -1, 4).transpose(1, 2)
    return functional.scaled_dot_product_attention(q, k, v, scale=2.0)


def test_scaled_queries() -> None:
    _, k, v = qkv(2, 5, 7)
    args = (torch.randn(2, 5, 8), k, v)
    captured = fused("query_scale", scaled_before, args)
    assert ops(captured)["mul"] == 0
    assert attention(captured)["scale"] == 0.5
    run_lowered(scaled_before, args)


def test_scaled_queries_that_are_used_elsewhere() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        q = q * 0.5
        return functional.scaled_dot_product_attention(q, k, v, scale=1.0), q

    captured = fused("query_scale", function, qkv(2, 5, 7))
    assert attention(captured)["scale"] == 1
    run_lowered(function, qkv(2, 5, 7))


def repeat(x: Any, count: int) -> Any:
    batch, heads, length, size = x.shape
    x = x[:, :, None].expand(batch, heads, count, length, size)
    return x.reshape(batch, heads * count, length, size)


def grouped(batch: int, length: int) -> tuple[Any, ...]:
    q, k, v = qkv(batch, length, length, heads=6)
    return q, k[:, :2], v[:, :2]


REPEATS: dict[str, Callable[[Any], Any]] = {
    "expand": lambda x: repeat(x, 3),
    "interleave": lambda x: x.repeat_interleave(3, dim=1),
}


@pytest.mark.parametrize("form", REPEATS)
def test_repeated_heads(form: str) -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        k, v = REPEATS[form](k), REPEATS[form](v)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    args, others = grouped(2, 5), grouped(3, 4)
    captured = fused("repeated_heads", function, args, others)
    assert ops(captured) == {SDPA: 1}
    assert attention(captured)["enable_gqa"]
    run_lowered(function, args, others)


def test_other_repeats_stay() -> None:
    def tiled(q: Any, k: Any, v: Any) -> Any:
        k, v = k.repeat(1, 3, 1, 1), v.repeat(1, 3, 1, 1)
        return functional.scaled_dot_product_attention(q, k, v)

    def one(q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(
            q, repeat(k, 3), v.tile(1, 3, 1, 1)
        )

    for function in (tiled, one):
        captured = fused("repeated_heads", function, grouped(2, 5))
        assert not attention(captured)["enable_gqa"]
        run_lowered(function, grouped(2, 5))


def capped(repeat_keys: Callable[[Any], Any]) -> Callable[..., Any]:
    """Gemma 2: no operator computes the tanh of the scores."""

    def function(q: Any, k: Any, v: Any) -> Any:
        k, v = repeat_keys(k), repeat_keys(v)
        scores = torch.tanh(q @ k.transpose(2, 3) * 0.5 / 50) * 50
        return scores.softmax(-1) @ v

    return function


@pytest.mark.parametrize("form", REPEATS)
def test_grouped_products(form: str) -> None:
    function = capped(REPEATS[form])
    args, others = grouped(2, 5), grouped(3, 4)
    captured = fused("grouped_product", function, args, others)
    assert not {"expand", "repeat_interleave"} & set(ops(captured))
    assert ops(captured)["matmul"] == 2
    run_lowered(function, args, others)


GROUPS: dict[str, Callable[[Any], Any]] = {
    "in turn": lambda x: x.repeat(1, 3, 1, 1),
    "along another axis": lambda x: x.repeat_interleave(3, 2)[:, :, : x.shape[2]][
        :, [0, 0, 0, 1, 1, 1]
    ],
    "of another batch": lambda x: repeat(x[:1], 3).expand(x.shape[0], -1, -1, -1),
}


@pytest.mark.parametrize("form", GROUPS)
def test_products_that_stay(form: str) -> None:
    captured = fused("grouped_product", capped(GROUPS[form]), grouped(2, 5))
    assert not ops(captured)["unflatten"]


def test_repeated_keys_that_are_returned() -> None:
    """They are made anyway, yet each product reads the fewer keys."""

    def function(q: Any, k: Any, v: Any) -> Any:
        keys = repeat(k, 3)
        return torch.tanh(q @ keys.mT), keys

    fused("grouped_product", function, grouped(2, 5))
    run_lowered(function, grouped(2, 5))


def test_what_is_between_scores_and_softmax_is_told() -> None:
    captured = fused("attention", capped(lambda x: x), qkv(2, 5, 5))
    why = "`tanh` is between the scores and their softmax"
    assert decisions(captured, "attention") == [("declined", why)]


@pytest.mark.parametrize("low", [torch.finfo(torch.float16).min, -1e4])
def test_masks_in_half_precision(low: float) -> None:
    """The lowest number forbids, others may not."""

    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = rows_and_columns(q, q)
        mask = torch.where(columns <= rows, torch.zeros((), dtype=q.dtype), low)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args = tuple(x.to(torch.float16) for x in qkv(2, 5, 5))
    captured = fused("attention_mask", function, args, tolerance=1e-2)
    assert attention(captured)["is_causal"] == (low < -1e4)
    run_lowered(function, args, tolerance=1e-2)
