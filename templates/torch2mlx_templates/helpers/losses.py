"""Losses over class indices. `reduction`: 0 is none, 1 the mean, 2 the sum."""

from __future__ import annotations

import mlx.core as mx


def nll_loss(
    logits: mx.array,
    target: mx.array,
    weight: mx.array | None = None,
    reduction: int = 1,
    ignore_index: int = -100,
) -> mx.array:
    """Minus the log-probability of each target class, 0 where it is `ignore_index`.

    Args:
        logits: Log-probabilities [N, C, *S], or [C].
        target: Class indices [N, *S], or a single one.
        weight: One weight per class [C]; the mean is over the weights.
        reduction: 0, 1 or 2.
        ignore_index: Class that does not count.
    """
    axis = 0 if logits.ndim == 1 else 1
    valid = target != ignore_index
    index = mx.where(valid, target, 0)
    picked = mx.take_along_axis(logits, mx.expand_dims(index, axis), axis).squeeze(axis)
    share = valid.astype(logits.dtype)
    if weight is not None:
        share = share * weight[index]
    loss = mx.where(valid, -picked * share, 0)
    if reduction == 0:
        return loss
    return mx.sum(loss) if reduction == 2 else mx.sum(loss) / mx.sum(share)


def smooth_nll_loss(
    logits: mx.array,
    target: mx.array,
    weight: mx.array | None,
    reduction: int,
    ignore_index: int,
    smoothing: float,
) -> mx.array:
    """`nll_loss` mixed with the mean over all classes, by the share `smoothing`."""
    axis = 0 if logits.ndim == 1 else 1
    valid = target != ignore_index
    classes = logits.shape[axis]
    loss = nll_loss(logits, target, weight, reduction, ignore_index)
    if weight is not None:
        logits = logits * weight.reshape(-1, *[1] * (logits.ndim - axis - 1))
    smooth = mx.where(valid, -mx.sum(logits, axis=axis), 0)
    if reduction == 1:
        share = valid.astype(logits.dtype)
        if weight is not None:
            share = share * weight[mx.where(valid, target, 0)]
        smooth = mx.sum(smooth) / mx.sum(share)
    elif reduction == 2:
        smooth = mx.sum(smooth)
    return (1 - smoothing) * loss + smoothing / classes * smooth


def multi_margin_loss(
    x: mx.array,
    target: mx.array,
    p: int,
    margin: float,
    weight: mx.array | None,
    reduction: int,
) -> mx.array:
    """The mean over wrong classes of max(0, margin - x[target] + x)**p."""
    index = mx.expand_dims(target, -1)
    close = mx.maximum(margin - mx.take_along_axis(x, index, -1) + x, 0) ** p
    if weight is not None:
        close = close * weight[index]
    wrong = mx.arange(x.shape[-1]) != index
    loss = mx.sum(mx.where(wrong, close, 0), axis=-1) / x.shape[-1]
    if reduction == 0:
        return loss
    return mx.mean(loss) if reduction == 1 else mx.sum(loss)


def multilabel_margin_loss(x: mx.array, target: mx.array, reduction: int) -> mx.array:
    """Sum over targets and other classes of max(0, 1 - x[target] + x) / C.

    The targets of a row are its class indices before the first -1.
    """
    classes = x.shape[-1]
    ends = mx.cumsum((target < 0).astype(mx.int32), axis=-1)
    listed = ends == 0
    index = mx.where(listed, target, 0)
    hits = (index[..., None] == mx.arange(classes)) & listed[..., None]
    other = ~mx.any(hits, axis=-2)
    picked = mx.take_along_axis(x, index, -1)
    close = mx.maximum(1 - picked[..., None] + x[..., None, :], 0)
    counted = listed[..., None] & other[..., None, :]
    loss = mx.sum(mx.where(counted, close, 0), axis=(-1, -2)) / classes
    if reduction == 0:
        return loss
    return mx.mean(loss) if reduction == 1 else mx.sum(loss)
