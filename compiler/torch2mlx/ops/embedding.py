"""Table lookups whose table is computed, and sums, means and maxima of bags of vectors."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch
import torch.fx

from torch2mlx.lower.facade import Refuse, Traced, helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten

REDUCTIONS = ("sum", "mean", "max")


@lowers(aten.embedding.default)
def embedding(
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """`weight[indices]`; the other arguments only concern gradients."""
    return weight[indices]


@lowers(aten.embedding_bag.padding_idx)
def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Any,
    include_last_offset: bool,
    padding_idx: int | None,
) -> Any:
    """The vectors of each bag reduced to one; what else it returns is for gradients."""
    rows = None
    if padding_idx is None and not include_last_offset:
        rows = _rows(indices, offsets)
    if rows is not None:
        vectors = weight[rows]
        if per_sample_weights is not None:
            vectors = vectors * per_sample_weights.reshape(rows.shape)[..., None]
        reduced = getattr(mx, REDUCTIONS[mode])(vectors, axis=1)
        return [reduced, None, None, None]
    vectors = weight[indices]
    if per_sample_weights is not None:
        vectors = vectors * per_sample_weights[:, None]
    bags = helpers.bag_of_each(offsets, indices.shape[0])
    count = offsets.shape[0]
    kept = count - 1 if include_last_offset else count
    if padding_idx is not None:  # goes into a bag of its own
        row = padding_idx if padding_idx >= 0 else weight.shape[0] + padding_idx
        bags = mx.where(indices == row, count, bags)
        count = count + 1
    reduce = (helpers.bag_sums, helpers.bag_means, helpers.bag_maxima)[mode]
    reduced = reduce(vectors, bags, count)
    whole = padding_idx is None and not include_last_offset
    return [reduced if whole else reduced[:kept], None, None, None]


@lowers(aten.embedding_bag.default)
def embedding_bag_without_padding(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
) -> Any:
    """`embedding_bag` of all indices."""
    options = (mode, sparse, per_sample_weights, include_last_offset, None)
    return embedding_bag(weight, indices, offsets, scale_grad_by_freq, *options)


@lowers(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag_inference(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """`embedding_bag` after decomposition."""
    padding = None if padding_idx < 0 else padding_idx
    options = (mode, sparse, per_sample_weights, include_last_offset, padding)
    return embedding_bag(weight, indices, offsets, scale_grad_by_freq, *options)


@lowers(aten.embedding_renorm.default)
def embedding_renorm(x: Any, indices: Any, max_norm: float, norm_type: float) -> Any:
    """`x` whose rows at `indices` have no larger norm than `max_norm`."""
    if norm_type < 0:
        raise Refuse(f"argument `norm_type`={norm_type} is not mapped")
    return helpers.renormalised(x, indices, max_norm, norm_type)


def _rows(indices: Any, offsets: Any) -> Any:
    """The indices as [bags, length] where all bags have one length and are not empty, else None."""
    if not isinstance(indices, Traced) or not isinstance(offsets, Traced):
        return None
    arange, flat = offsets.node, indices.node
    if arange.target is not mlx.core.arange or len(arange.args) < 3:
        return None
    start, _, length = arange.args[:3]
    source: Any = flat.args[0] if flat.args else None
    if start != 0 or flat.target not in (mlx.core.reshape, mlx.core.flatten):
        return None
    rows = indices.tracer.proxy(source)
    if isinstance(length, torch.fx.Node):
        length = indices.tracer.proxy(length)
    return rows if rows.ndim == 2 and _equal(rows.shape[1], length) else None


def _equal(size: Any, other: Any) -> bool:
    try:
        return bool(size == other)
    except Refuse:
        return False  # they may be equal or not
