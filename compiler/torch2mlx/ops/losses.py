"""Loss functions. `reduction` is 0 for none, 1 for the mean and 2 for the sum."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.modules.linear_cross_entropy  # declares torch.ops.torch_nn

from torch2mlx.lower.facade import Refuse, helpers, mx, nn
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import only_first
from torch2mlx.ops.linalg import linear

aten = torch.ops.aten

# PyTorch computes these in chunks of the batch, which `F.linear_cross_entropy` asks for.
LINEAR_CROSS_ENTROPY = torch.ops.torch_nn


def reduced(loss: Any, reduction: int) -> Any:
    """The loss of each element as ATen's `reduction` asks for it."""
    return (lambda x: x, mx.mean, mx.sum)[reduction](loss)


@lowers(aten.mse_loss.default)
def mse_loss(x: Any, target: Any, reduction: int = 1) -> Any:
    """The squared difference."""
    return reduced(mx.square(x - target), reduction)


@lowers(aten.l1_loss.default)
def l1_loss(x: Any, target: Any, reduction: int = 1) -> Any:
    """The absolute difference."""
    return reduced(mx.abs(x - target), reduction)


@lowers(aten.smooth_l1_loss.default)
def smooth_l1_loss(x: Any, target: Any, reduction: int = 1, beta: float = 1.0) -> Any:
    """Squared below `beta`, absolute above."""
    error = mx.abs(x - target)
    if beta == 0:
        return reduced(error, reduction)
    loss = mx.where(error < beta, 0.5 / beta * error * error, error - 0.5 * beta)
    return reduced(loss, reduction)


@lowers(aten.huber_loss.default)
def huber_loss(x: Any, target: Any, reduction: int = 1, delta: float = 1.0) -> Any:
    """Squared below `delta`, linear above."""
    error = mx.abs(x - target)
    loss = mx.where(error <= delta, 0.5 * error * error, delta * (error - 0.5 * delta))
    return reduced(loss, reduction)


@lowers(aten.binary_cross_entropy.default)
def binary_cross_entropy(
    x: Any, target: Any, weight: Any = None, reduction: int = 1
) -> Any:
    """Cross entropy of probabilities; as in PyTorch a logarithm is at least -100."""
    loss = -(
        target * mx.maximum(mx.log(x), -100)
        + (1 - target) * mx.maximum(mx.log(1 - x), -100)
    )
    return reduced(loss if weight is None else loss * weight, reduction)


@lowers(aten.binary_cross_entropy_with_logits.default)
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    """Cross entropy of logits."""
    positive = nn.softplus(-x) if pos_weight is None else nn.softplus(-x) * pos_weight
    loss = target * positive + (1 - target) * nn.softplus(x)
    return reduced(loss if weight is None else loss * weight, reduction)


@lowers(aten.kl_div.default)
def kl_div(x: Any, target: Any, reduction: int = 1, log_target: bool = False) -> Any:
    """The pointwise Kullback-Leibler divergence of log-probabilities `x` from `target`."""
    if log_target:
        return reduced(mx.exp(target) * (target - x), reduction)
    entropy = target * mx.log(mx.where(target == 0, 1, target))
    return reduced(entropy - target * x, reduction)


@lowers(aten.soft_margin_loss.default)
def soft_margin_loss(x: Any, target: Any, reduction: int = 1) -> Any:
    """log(1 + exp(-target * x))."""
    return reduced(nn.softplus(-target * x), reduction)


@lowers(aten.hinge_embedding_loss.default)
def hinge_embedding_loss(
    x: Any, target: Any, margin: float = 1.0, reduction: int = 1
) -> Any:
    """`x` where the target is 1, what lacks to `margin` where it is -1."""
    far = mx.where(target == 1, 0, mx.maximum(margin - x, 0))
    near = mx.where(target == -1, 0, x)
    return reduced(far + near, reduction)


@lowers(aten.margin_ranking_loss.default)
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: int = 1
) -> Any:
    """What lacks to `margin` in the order that the target asks for."""
    return reduced(mx.maximum(margin - target * (input1 - input2), 0), reduction)


@lowers(aten.poisson_nll_loss.default)
def poisson_nll_loss(
    x: Any, target: Any, log_input: bool, full: bool, eps: float, reduction: int
) -> Any:
    """Negative log likelihood of a Poisson distribution."""
    loss = mx.exp(x) - target * x if log_input else x - target * mx.log(x + eps)
    if full:
        large = mx.maximum(target, 1)  # Stirling's formula, used above 1 only
        stirling = large * mx.log(large) - large + 0.5 * mx.log(2 * mx.pi * large)
        loss = loss + mx.where(target > 1, stirling, 0)
    return reduced(loss, reduction)


@lowers(aten.cosine_similarity.default)
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The product of the normalised vectors along `dim`."""
    if max(x1.ndim, x2.ndim) == 0:
        return cosine_similarity(x1[None], x2[None], 0, eps)
    if _may_broadcast(x1.shape, x2.shape):
        x1, x2 = mx.broadcast_arrays(x1, x2)
    norms = [mx.sqrt(mx.sum(x * x, axis=dim, keepdims=True)) for x in (x1, x2)]
    first, second = (
        x / mx.maximum(norm, eps) for x, norm in zip((x1, x2), norms, strict=True)
    )
    return mx.sum(first * second, axis=dim)


def _may_broadcast(first: Any, second: Any) -> bool:
    if len(first) != len(second):
        return True
    ones = [[isinstance(n, int) and n == 1 for n in sizes] for sizes in (first, second)]
    return ones[0] != ones[1]


@lowers(aten.cosine_embedding_loss.default)
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: int = 1
) -> Any:
    """1 - cosine where the target is 1, what exceeds `margin` where it is -1."""
    product = mx.sum(input1 * input2, axis=-1)
    squares = [mx.sum(x * x, axis=-1) + 1e-12 for x in (input1, input2)]
    cosine = product / mx.sqrt(squares[0] * squares[1])
    loss = mx.where(target == 1, 1 - cosine, 0)
    loss = loss + mx.where(target == -1, mx.maximum(cosine - margin, 0), 0)
    return reduced(loss, reduction)


@lowers(aten.pairwise_distance.default)
def pairwise_distance(
    x1: Any, x2: Any, p: float = 2, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """The norm of each difference of vectors."""
    difference = mx.abs(x1 - x2 + eps)
    return helpers.vector_norm(difference, p, -1, keepdim)


@lowers(aten.triplet_margin_loss.default)
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = 1,
) -> Any:
    """How far the negative is from being `margin` farther away than the positive."""
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = mx.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(mx.maximum(margin + near - far, 0), reduction)


@lowers(aten.nll_loss.default, aten.nll_loss_nd.default, aten.nll_loss2d.default)
def nll_loss(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
) -> Any:
    """Minus the log-probability of the target class, along axis 1 of [N, C, *S] or 0 of [C]."""
    if ignore_index == -100 and weight is None:
        return helpers.nll_loss(x, target, reduction=reduction)
    return helpers.nll_loss(x, target, weight, reduction, ignore_index)


@lowers(aten.cross_entropy_loss.default)
def cross_entropy_loss(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """Cross entropy of logits with class indices or class probabilities."""
    axis = 0 if x.ndim == 1 else 1
    logits = x - mx.logsumexp(x, axis=axis, keepdims=True)
    if target.ndim == x.ndim:
        return _soft_cross_entropy(
            logits, target, axis, weight, reduction, label_smoothing
        )
    if label_smoothing:
        return helpers.smooth_nll_loss(
            logits, target, weight, reduction, ignore_index, label_smoothing
        )
    return nll_loss(logits, target, weight, reduction, ignore_index)


def _soft_cross_entropy(
    logits: Any, target: Any, axis: int, weight: Any, reduction: int, smoothing: float
) -> Any:
    if smoothing:
        classes = target.shape[axis]
        target = target * (1 - smoothing) + smoothing / classes
    if weight is not None:
        logits = logits * weight.reshape(-1, *[1] * (logits.ndim - axis - 1))
    loss = -mx.sum(logits * target, axis=axis)
    if reduction == 1 and axis == 0:
        return loss
    return reduced(loss, reduction)


@lowers(LINEAR_CROSS_ENTROPY._linear_cross_entropy_batch_chunked.default)
def linear_cross_entropy(
    x: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    batch_chunk_size: int,
    acc_policy: str,
    acc_dtype: Any,
    allow_retain_graph: bool,
    compute_input_grad: bool,
    compute_linear_weight_grad: bool,
    compute_linear_bias_grad: bool,
) -> Any:
    """`cross_entropy_loss` of a linear layer's output."""
    only_first(x)
    logits = linear(x, linear_weight, linear_bias)
    loss = cross_entropy_loss(
        logits,
        target,
        weight,
        ("none", "mean", "sum").index(reduction),
        ignore_index,
        label_smoothing,
    )
    return [loss, None, None, None]


@lowers(LINEAR_CROSS_ENTROPY._linear_cross_entropy_batch_chunked_no_reduction.default)
def linear_cross_entropies(
    x: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    ignore_index: int,
    batch_chunk_size: int,
    acc_policy: str,
    acc_dtype: Any,
) -> Any:
    """`cross_entropy_loss` of each row of a linear layer's output."""
    logits = linear(x, linear_weight, linear_bias)
    return cross_entropy_loss(logits, target, weight, 0, ignore_index)


@lowers(aten.multi_margin_loss.default)
def multi_margin_loss(
    x: Any,
    target: Any,
    p: Any = 1,
    margin: Any = 1,
    weight: Any = None,
    reduction: int = 1,
) -> Any:
    """What each wrong class of [N, C] comes too close to the target class."""
    _no_single_loss(target.ndim == 0, reduction)
    x = x if x.ndim else x[None]
    x = x if target.ndim < x.ndim else x[None]
    return helpers.multi_margin_loss(x, target, p, margin, weight, reduction)


@lowers(aten.multilabel_margin_loss.default)
def multilabel_margin_loss(x: Any, target: Any, reduction: int = 1) -> Any:
    """What each other class of [N, C] comes too close to each target class."""
    _no_single_loss(x.ndim < 2, reduction)
    x, target = (part if part.ndim else part[None] for part in (x, target))
    return helpers.multilabel_margin_loss(x, target, reduction)


def _no_single_loss(single: bool, reduction: int) -> None:
    """PyTorch computes one loss as a number, but exports it as a vector."""
    if single and reduction == 0:
        raise Refuse("argument `reduction`='none' is not mapped for one row")
