"""Dropout layers: inactive in evaluation, kept so that the generated module can be trained."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer

aten = torch.ops.aten


@layer(aten.dropout.default)
def dropout(x: Any, p: float, train: bool) -> Any:
    """`nn.Dropout`, active in training; `train` asks for dropping in evaluation too."""
    _check(p, train)
    return nn.Dropout(p)(x)


@layer(aten.feature_dropout.default)
def feature_dropout(x: Any, p: float, train: bool) -> Any:
    """`nn.Dropout2d` or `nn.Dropout3d` over [N, C, *S]: whole channels are dropped."""
    _check(p, train)
    if x.ndim not in (4, 5):
        raise Decline("mlx.nn has channel dropout over two or three axes")
    drop = (nn.Dropout2d if x.ndim == 4 else nn.Dropout3d)(p)
    return channels_first(drop(channels_last(x)))


def _check(p: float, train: bool) -> None:
    if train:
        raise Decline("it drops in evaluation too")
    if not 0 < p < 1:
        raise Decline("it never drops, or always")
