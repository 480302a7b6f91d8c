"""Keys and values that are repeated for groups of queries.

r = reshape(expand(unsqueeze(k, 2), [b, 2, 4, n, 8]), [b, 8, n, 8])   ->   y = attention(q, k, v, enable_gqa=True)
y = attention(q, r, ...)

y = matmul(q, transpose(r, 2, 3))     ->     y = flatten(matmul(unflatten(q, 1, [2, 4]), unsqueeze(k', 2)), 1, 2)
"""

from __future__ import annotations

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import ATTENTION
from torch2mlx.passes.fuse.attention import swaps_last_axes
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Match,
    Node,
    Tensor,
    fixed,
)
from torch2mlx.passes.rewrite import arguments, call, with_arguments
from torch2mlx.passes.views import EXPANSIONS, RESHAPES

aten = torch.ops.aten

SDPA = aten.scaled_dot_product_attention.default


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    given = arguments(root)
    key, value = (_once(captured, given[name]) for name in ("key", "value"))
    if key is None or value is None:
        raise Declined("")
    if _heads(captured, key) != _heads(captured, value):
        raise Declined("keys and values are repeated differently")
    if root.target is ATTENTION:
        return call(
            root, ATTENTION, given["query"], key, value, given["mask"], given["scale"]
        )
    return with_arguments(root, key=key, value=value, enable_gqa=True)


def _once(captured: Captured, x: torch.fx.Node) -> torch.fx.Node | None:
    """What is repeated along the axis of heads, each head as often."""
    if x.meta["val"].ndim != 4:
        return None
    if x.target is aten.repeat_interleave.self_int:
        given = arguments(x)
        source = given["self"]
        return source if given["dim"] in (1, -3) else None
    if x.target not in RESHAPES or x.args[0].target not in EXPANSIONS:  # type: ignore[union-attr]
        return None
    wide = x.args[0]
    assert isinstance(wide, torch.fx.Node)
    added = wide.args[0]
    if (
        not isinstance(added, torch.fx.Node)
        or added.target is not aten.unsqueeze.default
    ):
        return None
    source = added.args[0]
    assert isinstance(source, torch.fx.Node)
    if added.args[1] not in (2, -3) or wide.meta["val"].ndim != 5:
        return None
    batch, heads, *rest = source.meta["val"].shape
    repeats = wide.meta["val"].shape[2]
    whole = [batch, heads, repeats, *rest]
    joined = [batch, heads * repeats, *rest]
    for node, sizes in ((wide, whole), (x, joined)):
        own = node.meta["val"].shape
        if [captured.expr(s) for s in own] != [captured.expr(s) for s in sizes]:
            return None
    return source


def _heads(captured: Captured, x: torch.fx.Node) -> int | None:
    return fixed(captured, x.meta["val"].shape[1])


def _build_product(
    captured: Captured, root: torch.fx.Node, match: Match
) -> torch.fx.Node:
    """A product of each group of heads with the one that would be repeated."""
    left, right = root.args[:2]
    assert isinstance(left, torch.fx.Node)
    assert isinstance(right, torch.fx.Node)
    turned = swaps_last_axes(right)
    repeated = right.args[0] if turned else right
    assert isinstance(repeated, torch.fx.Node)
    once = _once(captured, repeated)
    if once is None:
        raise Declined("")
    repeats = _repeats(captured, repeated)
    expr = captured.expr
    heads = (node.meta["val"].shape[1] for node in (left, repeated))
    if repeats is None or len({expr(size) for size in heads}) > 1:
        raise Declined("how often heads are repeated is not fixed")
    once = call(root, aten.transpose.int, once, 2, 3) if turned else once
    grouped = call(root, aten.unflatten.int, left, 1, [-1, repeats])
    one = call(root, aten.unsqueeze.default, once, 2)
    product = call(root, aten.matmul.default, grouped, one)
    return call(root, aten.flatten.using_ints, product, 1, 2)


def _repeats(captured: Captured, x: torch.fx.Node) -> int | None:
    """How often `_once(x)` is in `x`."""
    if x.target is aten.repeat_interleave.self_int:
        repeats = arguments(x)["repeats"]
        return repeats if isinstance(repeats, int) else None
    wide = x.args[0]
    assert isinstance(wide, torch.fx.Node)
    return fixed(captured, wide.meta["val"].shape[2])


REPEATED_HEADS = Fusion(
    "repeated_heads", frozenset({SDPA, ATTENTION}), Node({SDPA, ATTENTION}), _build
)
GROUPED_PRODUCT = Fusion(
    "grouped_product",
    frozenset({aten.matmul.default}),
    Call({aten.matmul.default}, Tensor("left", ndim=4), Tensor("right", ndim=4)),
    _build_product,
)
