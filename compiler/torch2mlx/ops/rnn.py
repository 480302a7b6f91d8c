"""Recurrent layers and cells, by helpers that run one layer in one direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core
import mlx.nn
import torch

from torch2mlx.lower.facade import Refuse, Traced, helpers, mx, nn
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten

Layer = Callable[..., tuple[Any, ...]]


def stacked(
    run: Layer,
    x: Any,
    states: list[Any],
    params: Any,
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Any]:
    """All layers and directions of a recurrent module.

    Args:
        run: One layer in one direction: (x [B, L, D], its state arrays, its weights, what its
            variables' names end in) to all outputs and the last state arrays.
        x: [B, L, D], or [L, B, D] unless `batch_first`.
        states: Arrays [layers * directions, B, H]: the state that each layer begins with.
        params: The weights of each layer and direction, in order.
        has_biases: Whether two of them are biases.
        num_layers: Number of layers.
        bidirectional: Whether each layer also runs backwards.
        batch_first: The layout of `x` and of the output.

    Returns:
        The output, then the last states, stacked like `states`.
    """
    directions = 2 if bidirectional else 1
    runs = num_layers * directions
    each = len(params) // runs
    x = x if batch_first else mx.swapaxes(x, 0, 1)
    last: list[tuple[Any, ...]] = []
    for index in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = index * directions + direction
            begin = [_at(state, place, x) for state in states]
            weights = params[place * each : (place + 1) * each]
            turned = x[:, ::-1] if direction else x
            suffix = f"{index + 1}{'b' if direction else ''}" if runs > 1 else ""
            y, *end = run(turned, begin, weights, suffix)
            outputs.append(y[:, ::-1] if direction else y)
            last.append(tuple(end))
        x = mx.concatenate(outputs, axis=-1) if bidirectional else outputs[0]
    x = x if batch_first else mx.swapaxes(x, 0, 1)
    ends = zip(*last, strict=True)
    return [x, *(_stack(end) for end in ends)]


def is_zeros(state: Any) -> bool:
    """Whether a traced state is made of zeros."""
    return isinstance(state, Traced) and state.node.target is mlx.core.zeros


def named(value: Any, name: str) -> Any:
    """`value`, which is called `name` where it becomes a variable."""
    if isinstance(value, Traced):
        value.node.meta["role"] = name
    return value


def _at(state: Any, place: int, x: Any) -> Any:
    """What one layer begins with, of the states [layers * directions, B, H]."""
    if not is_zeros(state):
        return None if state is None else state[place]
    size, dtype = state.hint.shape[-1], state.dtype
    options = () if dtype == mlx.core.float32 else (dtype,)
    return mx.zeros((x.shape[0], size), *options)


def _stack(states: tuple[Any, ...]) -> Any:
    return states[0][None] if len(states) == 1 else mx.stack(list(states))


def _named_all(results: Any, names: tuple[str, ...], suffix: str) -> tuple[Any, ...]:
    return tuple(
        named(result, f"{name}{suffix}")
        for result, name in zip(results, names, strict=True)
    )


def summed_bias(weights: Any) -> Any:
    """The two biases of a layer as one, None where it has none."""
    return weights[2] + weights[3] if len(weights) >= 4 else None


@lowers(aten.lstm.input)
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
    """LSTM layers, with a projection of the hidden state where there is a weight for it."""
    no_dropout(dropout, train)

    def run(y: Any, states: list[Any], weights: Any, suffix: str) -> tuple[Any, ...]:
        optional = {}
        if has_biases:
            optional["bias"] = summed_bias(weights)
        if len(weights) % 2:
            optional["projection"] = weights[-1]
        results = helpers.lstm_layer(y, *states, *weights[:2], **optional)
        return _named_all(results, ("hidden", "h", "c"), suffix)

    return stacked(
        run, x, list(hx), params, has_biases, num_layers, bidirectional, batch_first
    )


@lowers(aten.gru.input)
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
    """GRU layers."""
    no_dropout(dropout, train)

    def run(y: Any, states: list[Any], weights: Any, suffix: str) -> tuple[Any, ...]:
        return _named_all(
            helpers.gru_layer(y, *states, *weights), ("hidden", "h"), suffix
        )

    return stacked(
        run, x, [hx], params, has_biases, num_layers, bidirectional, batch_first
    )


def rnn(activation: str) -> Any:
    """The lowering of recurrent layers with an activation."""

    def lowering(
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
        no_dropout(dropout, train)
        function = mlx.core.tanh if activation == "tanh" else mlx.nn.relu

        def run(
            y: Any, states: list[Any], weights: Any, suffix: str
        ) -> tuple[Any, ...]:
            bias = [summed_bias(weights)] if has_biases else []
            results = helpers.rnn_layer(y, *states, function, *weights[:2], *bias)
            return _named_all(results, ("hidden", "h"), suffix)

        return stacked(
            run, x, [hx], params, has_biases, num_layers, bidirectional, batch_first
        )

    return lowering


lowers(aten.rnn_tanh.input)(rnn("tanh"))
lowers(aten.rnn_relu.input)(rnn("relu"))


@lowers(aten.lstm_cell.default)
def lstm_cell(
    x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """One step of an LSTM."""
    return list(helpers.lstm_cell(_gates(x, hx[0], w_ih, w_hh, b_ih, b_hh), hx[1]))


@lowers(aten.gru_cell.default)
def gru_cell(
    x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """One step of a GRU."""
    first, second = x @ w_ih.T, hx @ w_hh.T
    if b_ih is not None:
        first, second = first + b_ih, second + b_hh
    return helpers.gru_cell(first, second, hx)


@lowers(aten.rnn_tanh_cell.default)
def rnn_tanh_cell(
    x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """One step of a recurrent layer with tanh."""
    return mx.tanh(_gates(x, hx, w_ih, w_hh, b_ih, b_hh))


@lowers(aten.rnn_relu_cell.default)
def rnn_relu_cell(
    x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """One step of a recurrent layer with relu."""
    return nn.relu(_gates(x, hx, w_ih, w_hh, b_ih, b_hh))


def _gates(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    gates = x @ w_ih.T + h @ w_hh.T
    return gates if b_ih is None else gates + (b_ih + b_hh)


def no_dropout(dropout: float, train: bool) -> None:
    if dropout and train:
        raise Refuse("argument `train`=True is not mapped: it drops between layers")
