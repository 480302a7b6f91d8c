"""Dropout that is no layer: it never drops, or in evaluation too."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.facade import Refuse, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten


@lowers(aten.dropout.default)
def dropout(x: Any, p: float, train: bool) -> Any:
    """Each element zeroed with probability `p`, the others scaled to keep the mean."""
    return _dropped(x, p, train, x.shape)


@lowers(aten.feature_dropout.default)
def feature_dropout(x: Any, p: float, train: bool) -> Any:
    """Each channel of [N, C, *S] zeroed with probability `p`, the others scaled."""
    return _dropped(x, p, train, (*x.shape[:2], *[1] * (x.ndim - 2)))


@lowers(aten.alpha_dropout.default, aten.feature_alpha_dropout.default)
def alpha_dropout(x: Any, p: float, train: bool) -> Any:
    """`x`: in evaluation nothing is dropped."""
    if train and p:
        raise Refuse("argument `train`=True is not mapped: MLX has no alpha dropout")
    return x


def _dropped(x: Any, p: float, train: bool, shape: tuple[Any, ...]) -> Any:
    if not train or p == 0:
        return x
    if p == 1:
        return mx.zeros_like(x)
    return mx.random.bernoulli(1 - p, shape) * x / (1 - p)
