"""Attention masks that are dropped, become causal, or lose what says nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from tests.aten import check, ops
from torch2mlx.passes.broadcasts import broadcasts
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.masks import masks
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes

PASSES = (simplify, fold_sizes, masks, broadcasts, scalars, drop_dead_code)


def attention(captured: Any) -> dict[str, Any]:
    """The arguments of the only attention call."""
    from torch2mlx.passes.rewrite import arguments

    (node,) = (n for n in captured.graph.nodes if "scaled_dot" in n.name)
    return arguments(node)


def qkv(batch: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    return (
        torch.randn(batch, 2, queries, 4),
        torch.randn(batch, 2, keys, 4),
        torch.randn(batch, 2, keys, 4),
    )


def test_all_true() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        mask = mask & (torch.arange(k.shape[2]) >= 0)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = check(PASSES, function, qkv(2, 5, 7), qkv(3, 4, 4))
    assert attention(captured)["attn_mask"] is None
    assert not attention(captured)["is_causal"]
    assert ops(captured) == {"scaled_dot_product_attention": 1}
    assert [decision.kind for decision in captured.decisions] == ["simplified"]


def test_causal() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        rows, columns = torch.arange(q.shape[2]), torch.arange(k.shape[2])
        mask = (columns[None, :] <= rows[:, None])[None, None]
        mask = mask.expand(q.shape[0], 1, -1, -1)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = check(PASSES, function, qkv(2, 5, 7), qkv(3, 4, 4))
    assert attention(captured)["attn_mask"] is None
    assert attention(captured)["is_causal"]


def test_nearly_causal_masks_stay() -> None:
    for mask in (
        lambda r, c: c < r,
        lambda r, c: c >= r,
        lambda r, c: c <= r + 1,
        lambda r, c: c * 2 <= r,
    ):

        def function(q: Any, k: Any, v: Any, mask: Any = mask) -> Any:
            r, c = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None]
            return functional.scaled_dot_product_attention(q, k, v, mask(r, c))

        captured = check(PASSES, function, qkv(2, 5, 5))
        assert attention(captured)["attn_mask"] is not None


def test_a_mask_of_columns_broadcasts() -> None:
    def function(q: Any, k: Any, v: Any, padding: Any) -> Any:
        rows, columns = torch.arange(q.shape[2]), torch.arange(padding.shape[1])
        batch = torch.arange(padding.shape[0])
        seen = padding.bool()[batch[:, None, None, None], columns[None, None, None, :]]
        mask = (rows[None, None, :, None] >= 0) & seen
        mask = mask.expand(-1, -1, q.shape[2], k.shape[2])
        return functional.scaled_dot_product_attention(q, k, v, mask)

    args = (*qkv(2, 5, 7), torch.randint(0, 2, (2, 7)).float())
    args[3][:, 0] = 1
    captured = check(PASSES, function, args)
    mask = attention(captured)["attn_mask"]
    assert mask.target is torch.ops.aten.unsqueeze.default
    assert tuple(captured.size(s) for s in mask.meta["val"].shape) == (2, 1, 1, 7)
    assert set(ops(captured)) == {"to", "unsqueeze", "scaled_dot_product_attention"}


def test_indices() -> None:
    def turned(x: Any) -> Any:
        rows, columns = torch.arange(x.shape[0]), torch.arange(x.shape[1])
        return x[rows[None, :], columns[:, None]]

    captured = check(PASSES, turned, (torch.randn(3, 4),), (torch.randn(2, 5),))
    assert set(ops(captured)) == {"permute"}

    def repeated(x: Any) -> Any:
        return x[torch.arange(x.shape[0]).expand(4, -1)]

    captured = check(PASSES, repeated, (torch.randn(3),), (torch.randn(2),))
    assert set(ops(captured)) <= {"unsqueeze", "expand", "sym_size", "index", "arange"}

    def others(x: Any) -> Any:
        n = torch.arange(x.shape[0])
        return x[n, n], x[n], x[n[:, None], n + 1], x[n.flip(0)[:, None], n]

    captured = check(PASSES, others, (torch.randn(3, 4),), dynamic=False)
    assert ops(captured)["index"] == 4


def test_choices_that_are_no_choice() -> None:
    def function(x: Any) -> Any:
        always = torch.arange(x.shape[1]) >= 0
        never = torch.arange(x.shape[1]) < 0
        b = x > 0
        return (
            torch.where(always, x, 0.0 * x),
            torch.where(never[None], x, x[:1]),
            x.masked_fill(never, 1.0),
            b & b,
            b | never,
            b & always[None],
            b & never,
        )

    captured = check(PASSES, function, (torch.randn(3, 4),), (torch.randn(5, 2),))
    assert not {
        "where",
        "masked_fill",
        "and",
        "or",
        "__and__",
        "__or__",
        "ge",
        "lt",
    } & set(ops(captured))


def test_expansions_wait() -> None:
    def function(x: Any, mask: Any) -> Any:
        wide = mask[:, None, :].expand(-1, x.shape[1], -1)
        bias = torch.where(wide, 0.0, -1e9).exp()
        return x + bias, x * wide.float()

    args = (torch.randn(2, 3, 4), torch.randn(2, 4) > 0)
    captured = check(
        PASSES, function, args, (torch.randn(3, 5, 2), torch.randn(3, 2) > 0)
    )
    assert ops(captured)["expand"] == 0


def test_expansions_that_give_the_shape_stay() -> None:
    def function(x: Any) -> Any:
        y = x[:, None].expand(-1, 3, -1)
        return y.sin() + x[:, None], torch.cat([y, y])

    captured = check(PASSES, function, (torch.randn(2, 4),))
    assert ops(captured)["expand"] == 2


def test_a_bias_that_nothing_masks() -> None:
    """T5: the mask of an encoder without padding."""

    def function(q: Any, k: Any, v: Any, bias: Any) -> Any:
        allowed = torch.ones(q.shape[0], 1, q.shape[2], k.shape[2], dtype=torch.bool)
        mask = torch.where(allowed, bias, torch.finfo(torch.float32).min)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = check(PASSES, function, (*qkv(2, 5, 7), torch.randn(1, 2, 5, 7)))
    assert ops(captured) == {"scaled_dot_product_attention": 1}
    assert attention(captured)["attn_mask"].op == "placeholder"


def test_a_bias_of_nothing() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        mask = torch.zeros(1, 2, q.shape[2], k.shape[2])
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = check(PASSES, function, qkv(2, 5, 7), qkv(3, 4, 4))
    assert attention(captured)["attn_mask"] is None
    why = [decision.why for decision in captured.decisions]
    assert why == ["it adds 0, so it is dropped"]


def test_nothing_is_allowed_by_zeros() -> None:
    """False is 0 too."""

    def function(q: Any, k: Any, v: Any) -> Any:
        mask = torch.zeros(q.shape[2], k.shape[2], dtype=torch.bool)
        return functional.scaled_dot_product_attention(q, k, v, mask)

    captured = check(PASSES, function, qkv(2, 5, 7), qkv(3, 4, 4))
    assert attention(captured)["attn_mask"] is not None
