"""Recurrent layers: one `mlx.nn` layer for each layer and direction of PyTorch's module."""

from __future__ import annotations

from typing import Any

import torch

from torch2mlx.ir.layer import Weight
from torch2mlx.lower.facade import Decline, nn
from torch2mlx.lower.registry import layer
from torch2mlx.lower.weights import weight_of
from torch2mlx.ops.rnn import is_zeros, named, no_dropout, stacked, summed_bias

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
    no_dropout(dropout, train)

    def run(y: Any, states: list[Any], weights: Any, suffix: str) -> tuple[Any, ...]:
        if len(weights) % 2:
            raise Decline("nn.LSTM has no projection")
        module = nn.LSTM(weights[0].shape[1], weights[1].shape[1], **_bias(has_biases))
        module.Wx, module.Wh = weights[0], weights[1]
        if has_biases:
            module.bias = summed_bias(weights)
        hidden, cell = module(y, *(s for s in states if s is not None))
        named(hidden, f"hidden{suffix}")
        named(cell, f"cell{suffix}")
        last = hidden[:, -1], cell[:, -1]
        return hidden, named(last[0], f"h{suffix}"), named(last[1], f"c{suffix}")

    begin = [None, None] if all(is_zeros(state) for state in hx) else list(hx)
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
    no_dropout(dropout, train)

    def run(y: Any, states: list[Any], weights: Any, suffix: str) -> tuple[Any, ...]:
        module = nn.RNN(weights[0].shape[1], weights[1].shape[1], **_bias(has_biases))
        module.Wxh, module.Whh = weights[0], weights[1]
        if has_biases:
            module.bias = summed_bias(weights)
        return _run(module, y, states, suffix)

    begin = [None] if is_zeros(hx) else [hx]
    return stacked(
        run, x, begin, params, has_biases, num_layers, bidirectional, batch_first
    )


@layer(aten.gru.input)
def gru(
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
    """`nn.GRU`."""
    no_dropout(dropout, train)

    def run(y: Any, states: list[Any], weights: Any, suffix: str) -> tuple[Any, ...]:
        size = weights[1].shape[1]
        module = nn.GRU(weights[0].shape[1], size, **_bias(has_biases))
        module.Wx, module.Wh = weights[0], weights[1]
        if has_biases:
            module.b = _gru_bias(weights[2], weights[3])
            module.bhn = weights[3][2 * size :]
        return _run(module, y, states, suffix)

    begin = [None] if is_zeros(hx) else [hx]
    return stacked(
        run, x, begin, params, has_biases, num_layers, bidirectional, batch_first
    )


def _run(module: Any, x: Any, states: list[Any], suffix: str) -> tuple[Any, ...]:
    hidden = module(x, *(s for s in states if s is not None))
    return named(hidden, f"hidden{suffix}"), named(hidden[:, -1], f"h{suffix}")


def _gru_bias(first: Any, second: Any) -> Weight:
    """MLX adds the state's bias of the new gate itself, so the sum leaves it out."""
    sources = [weight_of(bias.node) for bias in (first, second)]
    if any(weight.steps or weight.merge for weight in sources):
        raise Decline("its biases are computed")
    keys = sources[0].sources + sources[1].sources
    return Weight(keys, "gru_bias", (), sources[0].trainable)


def _bias(has_biases: bool) -> dict[str, bool]:
    return {} if has_biases else {"bias": False}
