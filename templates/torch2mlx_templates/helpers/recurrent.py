"""Recurrent layers, one direction each: [B, L, D] -> [B, L, H] and the last state."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx


def lstm_cell(
    gates: mx.array, c: mx.array, projection: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """The new hidden and cell state, from the gates [..., 4 * H]."""
    i, f, g, o = mx.split(gates, 4, axis=-1)
    c = mx.sigmoid(f) * c + mx.sigmoid(i) * mx.tanh(g)
    h = mx.sigmoid(o) * mx.tanh(c)
    return (h if projection is None else h @ projection.T), c


def lstm_layer(
    x: mx.array,
    h: mx.array,
    c: mx.array,
    weight_x: mx.array,
    weight_h: mx.array,
    bias: mx.array | None = None,
    projection: mx.array | None = None,
) -> tuple[mx.array, mx.array, mx.array]:
    """An LSTM: all hidden states, the last one, and the last cell state."""
    x = x @ weight_x.T if bias is None else mx.addmm(bias, x, weight_x.T)
    states = []
    for step in range(x.shape[1]):
        h, c = lstm_cell(x[:, step] + h @ weight_h.T, c, projection)
        states.append(h)
    return mx.stack(states, axis=1), h, c


def gru_cell(x: mx.array, state: mx.array, h: mx.array) -> mx.array:
    """The new state from what input and old state give to the gates [..., 3 * H]."""
    xr, xz, xn = mx.split(x, 3, axis=-1)
    hr, hz, hn = mx.split(state, 3, axis=-1)
    z = mx.sigmoid(xz + hz)
    n = mx.tanh(xn + mx.sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h


def gru_layer(
    x: mx.array,
    h: mx.array,
    weight_x: mx.array,
    weight_h: mx.array,
    bias_x: mx.array | None = None,
    bias_h: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """A GRU: all states and the last one."""
    x = x @ weight_x.T if bias_x is None else mx.addmm(bias_x, x, weight_x.T)
    states = []
    for step in range(x.shape[1]):
        state = h @ weight_h.T
        state = state if bias_h is None else state + bias_h
        h = gru_cell(x[:, step], state, h)
        states.append(h)
    return mx.stack(states, axis=1), h


def rnn_layer(
    x: mx.array,
    h: mx.array,
    activation: Callable[[mx.array], mx.array],
    weight_x: mx.array,
    weight_h: mx.array,
    bias: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """A plain recurrent layer: all states and the last one."""
    x = x @ weight_x.T if bias is None else mx.addmm(bias, x, weight_x.T)
    states = []
    for step in range(x.shape[1]):
        h = activation(x[:, step] + h @ weight_h.T)
        states.append(h)
    return mx.stack(states, axis=1), h
