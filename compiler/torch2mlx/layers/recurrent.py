"""Recurrent layers: one `mlx.nn` layer for each layer and direction of PyTorch's module."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer
from torch2mlx.ops.rnn import stacked, summed_bias

aten = torch.ops.aten


@layer(aten.lstm.input)
def lstm(
    x: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """`nn.LSTM`, which returns the states of all steps."""
    if dropout and train:
        raise Decline("it drops between layers")

    def run(y: Any, states: list[Any], weights: Any) -> tuple[Any, ...]:
        if len(weights) % 2:
            raise Decline("nn.LSTM has no projection")
        module = nn.LSTM(weights[0].shape[1], weights[1].shape[1], **_bias(has_biases))
        module.Wx, module.Wh = weights[0], weights[1]
        if has_biases:
            module.bias = summed_bias(weights)
        hidden, cell = module(y, *(s for s in states if s is not None))
        return hidden, hidden[:, -1], cell[:, -1]

    begin = [None, None] if all(_is_zeros(state) for state in hx) else list(hx)
    return stacked(
        run, x, begin, params, has_biases, num_layers, bidirectional, batch_first
    )


@layer(aten.rnn_tanh.input)
def rnn(
    x: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """`nn.RNN`, with its default activation."""
    if dropout and train:
        raise Decline("it drops between layers")

    def run(y: Any, states: list[Any], weights: Any) -> tuple[Any, ...]:
        module = nn.RNN(weights[0].shape[1], weights[1].shape[1], **_bias(has_biases))
        module.Wxh, module.Whh = weights[0], weights[1]
        if has_biases:
            module.bias = summed_bias(weights)
        hidden = module(y, *(s for s in states if s is not None))
        return hidden, hidden[:, -1]

    begin = [None] if _is_zeros(hx) else [hx]
    return stacked(
        run, x, begin, params, has_biases, num_layers, bidirectional, batch_first
    )


def _is_zeros(state: Any) -> bool:
    """Whether a layer begins with zeros, as it does without a state."""
    return state.node.target is mlx.core.zeros


def _bias(has_biases: bool) -> dict[str, bool]:
    return {} if has_biases else {"bias": False}
