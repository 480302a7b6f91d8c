"""Shapes of recurrent operators without running their steps, which would fix the length."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C import DispatchKey
from torch._ops import OpOverload

aten = torch.ops.aten


@contextlib.contextmanager
def free_lengths() -> Iterator[None]:
    """While this is open, torch.export leaves the length of recurrent operators free."""
    keys = (DispatchKey.Autograd, DispatchKey.CompositeImplicitAutograd)
    before = {op: dict(op.py_kernels) for op in SHAPES}
    try:
        for op, shapes in SHAPES.items():
            op.py_kernels.update(dict.fromkeys(keys, shapes))
            op._dispatch_cache.clear()
        yield
    finally:
        for op, kernels in before.items():
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()


def _lstm(x: torch.Tensor, hx: list[torch.Tensor], *options: Any) -> Any:
    output, hidden = _rnn(x, hx[0], *options)
    return output, hidden, torch.empty_like(hx[1])


def _rnn(x: torch.Tensor, hx: torch.Tensor, *options: Any) -> Any:
    *_, bidirectional, _ = options
    width = hx.shape[-1] * (2 if bidirectional else 1)
    return x.new_empty(*x.shape[:2], width), torch.empty_like(hx)


SHAPES: dict[OpOverload, Callable[..., Any]] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _rnn,
    aten.rnn_tanh.input: _rnn,
    aten.rnn_relu.input: _rnn,
}
