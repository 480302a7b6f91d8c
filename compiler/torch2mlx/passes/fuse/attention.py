"""Softmax attention written out.

s = mul(matmul(q, transpose(k, -2, -1)), 0.35)     ->   y = scaled_dot_product_attention(q, k, v, m, scale=0.35)
y = matmul(softmax(add(s, m), -1), v)

In half precision the scores and their softmax may be float32; the operator computes both in float32. The dropout of
the weights, which evaluation skips, goes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.pattern import (
    Call,
    Declined,
    Either,
    Is,
    Match,
    Maybe,
    Number,
    Pattern,
    Product,
    Tensor,
    add,
    cast,
    close,
    dtype_of,
    fixed,
)
from torch2mlx.passes.rewrite import call, keeps_shape
from torch2mlx.passes.scalars import WHERES, number_of
from torch2mlx.passes.views import DROPOUTS, PERMUTES, axis_order

aten = torch.ops.aten

PRODUCTS = {aten.matmul.default, aten.bmm.default}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Numbers so low that any score vanishes beside them: in float16, the lowest
NEVER = -1e30
NEVER_HALF = torch.finfo(torch.float16).min


def _anything(value: Any) -> bool:
    return True


def _dropped(x: Pattern) -> Pattern:
    return Call(DROPOUTS, x, Is(_anything), Is(lambda train: train is False))


_product = Call(PRODUCTS, Tensor("q"), Tensor("kt"))
_scores = Product(
    Either(
        Maybe(cast, _product),
        # Scaled together with the mask
        add(Maybe(cast, _product), Tensor("early")),
    ),
    number="scale",
)
_masked = Either(
    add(add(_scores, Tensor("bias")), Tensor("mask")),
    add(_scores, Tensor("mask")),
    Call(
        {aten.masked_fill.Scalar},
        Maybe(lambda x: add(x, Tensor("bias")), _scores),
        Tensor("hidden"),
        Number("low"),
    ),
    Call(
        {aten.where.ScalarOther},
        Tensor("allowed"),
        Maybe(lambda x: add(x, Tensor("bias")), _scores),
        Number("low"),
    ),
    _scores,
)
SOFTMAX = {aten.softmax.int, aten._softmax.default}
# What may stand between the scores and their softmax
BETWEEN = {
    *(aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor),
    *(aten.masked_fill.Scalar, aten.where.ScalarOther, aten.to.dtype),
}
_weights = Call(
    SOFTMAX,
    Maybe(cast, _masked),
    dim=Is(lambda axis: axis == -1),
    dtype=Is(_anything),
)


def _build(captured: Captured, root: torch.fx.Node, match: Match) -> torch.fx.Node:
    q, v, kt = match["q"], match["v"], match["kt"]
    _check_operands(captured, q, kt, v)
    scale = rounded(captured, q, match["scale"])
    mask = _mask(root, match, dtype_of(q))
    given = () if mask is None else (mask,)
    _check_mask(captured, q, kt, mask)
    k = transposed(root, kt)
    new = call(
        root, aten.scaled_dot_product_attention.default, q, k, v, *given, scale=scale
    )
    if dtype_of(new) != dtype_of(root):
        raise Declined(f"its result is {dtype_of(root)}")
    return new


def _check_operands(captured: Captured, *operands: torch.fx.Node) -> None:
    values = [node.meta["val"] for node in operands]
    if len({value.dtype for value in values}) > 1 or values[0].dtype not in FLOATS:
        raise Declined("queries, keys and values are not of one dtype")
    ranks = {value.ndim for value in values}
    if not ranks <= {3, 4} or len(ranks) > 1:
        raise Declined("queries, keys and values have not 3 or 4 axes")
    leading = [[captured.expr(s) for s in value.shape[:-2]] for value in values]
    if any(sizes != leading[0] for sizes in leading):
        raise Declined("queries, keys and values differ in batch or heads")


def rounded(captured: Captured, q: torch.fx.Node, scale: float) -> float:
    """`scale`, or the inverse root of the size of a head where it is that but for rounding."""
    size = fixed(captured, q.meta["val"].shape[-1])
    return size**-0.5 if size and close(scale, size**-0.5) else scale


def _mask(
    root: torch.fx.Node, match: Match, dtype: torch.dtype
) -> torch.fx.Node | None:
    """What is added to the scores, of the queries' dtype."""
    masks = [match[name] for name in ("bias", "mask") if match.get(name) is not None]
    if (early := match.get("early")) is not None:
        masks.append(_scaled(root, early, match["scale"]))
    if any(dtype_of(mask) != dtype for mask in masks):
        raise Declined("the mask has another dtype than the queries")
    if (low := match.get("low")) is not None:
        if low > NEVER:
            raise Declined(f"what is masked counts as {low}, which is not low enough")
        low = low if math.isinf(low) else max(low, torch.finfo(dtype).min)
        allowed = match.get("allowed")
        if allowed is not None:
            mask = call(root, aten.where.Scalar, allowed, 0.0, low)
        else:
            mask = call(root, aten.where.Scalar, match["hidden"], low, 0.0)
        if dtype_of(mask) != dtype:
            mask = call(root, aten.to.dtype, mask, dtype)
        masks.append(mask)
    while len(masks) > 1:
        masks[:2] = [call(root, aten.add.Tensor, *masks[:2])]
    return masks[0] if masks else None


def _scaled(root: torch.fx.Node, mask: torch.fx.Node, scale: float) -> torch.fx.Node:
    """A mask that is scaled with the scores; where it only forbids, that changes nothing."""
    if scale == 1 or (scale > 0 and allowed_by(mask) is not None):
        return mask
    return call(root, aten.mul.Tensor, mask, scale)


def _check_mask(
    captured: Captured, q: torch.fx.Node, kt: torch.fx.Node, mask: Any
) -> None:
    """The scores must not become larger by the mask."""
    if mask is None:
        return
    sizes = (*q.meta["val"].shape[:-1], kt.meta["val"].shape[-1])
    own = mask.meta["val"].shape
    wanted = [captured.expr(size) for size in sizes[len(sizes) - len(own) :]]
    if len(own) > len(sizes) or any(
        captured.expr(size) not in (1, want)
        for size, want in zip(own, wanted, strict=True)
    ):
        raise Declined("the mask has axes that the scores have not")


def transposed(here: torch.fx.Node, x: torch.fx.Node) -> torch.fx.Node:
    """`x` with its last two axes swapped: what `x` is the transpose of, if it is one."""
    if swaps_last_axes(x):
        source = x.args[0]
        assert isinstance(source, torch.fx.Node)
        return source
    return call(here, aten.transpose.int, x, -2, -1)


def swaps_last_axes(x: torch.fx.Node) -> bool:
    """Whether a node is the transpose of matrices."""
    ndim = x.meta["val"].ndim
    swap = (*range(ndim - 2), ndim - 1, ndim - 2)
    return x.target in PERMUTES and axis_order(x) == swap


def allowed_by(mask: torch.fx.Node) -> torch.fx.Node | None:
    """The condition where an additive mask is 0, and else so low that nothing is left."""
    if mask.target not in WHERES:
        return None
    condition, kept, low = mask.args[:3]
    number = number_of(low)
    never = NEVER_HALF if dtype_of(mask) == torch.float16 else NEVER
    if number_of(kept) != 0 or number is None or number > never:
        return None
    return condition if isinstance(condition, torch.fx.Node) else None


def _hint(root: torch.fx.Node) -> str:
    """What is between a product and a softmax that another product follows."""
    weights = _before(root.args[0], DROPOUTS | {aten.to.dtype})
    if weights.target not in SOFTMAX:
        return ""
    last = _before(weights.args[0], BETWEEN)
    if last.target in PRODUCTS or len(last.all_input_nodes) != 1:
        return ""
    if _before(last.args[0], BETWEEN).target not in PRODUCTS:
        return ""
    return f"`{_name(last)}` is between the scores and their softmax"


def _before(node: Any, passed: Collection[Any]) -> torch.fx.Node:
    """What calls of `passed` make a node of, in the same shape."""
    while node.target in passed:
        same = [n for n in node.all_input_nodes if keeps_shape(node, n)]
        if not same:
            break
        node = same[0]
    return node


def _name(node: torch.fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


ATTENTION = Fusion(
    "attention",
    frozenset(PRODUCTS),
    Call(
        PRODUCTS, Maybe(_dropped, Maybe(cast, Maybe(_dropped, _weights))), Tensor("v")
    ),
    _build,
    _hint,
)
