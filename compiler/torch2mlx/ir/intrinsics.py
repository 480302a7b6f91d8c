"""Functions that the generated code writes as syntax: `x.shape[0]`, `x.astype(...)`, `x.at[...].add(...)`."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def makes_new(target: Any) -> bool:
    """Whether a function is one of MLX or an operator, which make new arrays of what they get."""
    module = getattr(target, "__module__", "") or ""
    return module.partition(".")[0] in ("mlx", "_operator")


def dim(x: mx.array, axis: int) -> int:
    """One size of `x`; printed as `x.shape[axis]`."""
    return x.shape[axis]


def astype(x: mx.array, dtype: mx.Dtype) -> mx.array:
    """`x` cast to `dtype`; printed as `x.astype(dtype)`."""
    return x.astype(dtype)


def item(x: mx.array) -> bool | int | float:
    """The number that `x` holds, which is evaluated; printed as `x.item()`."""
    return x.item()  # type: ignore[return-value]


def as_linear(x: mx.array, weight: mx.array) -> mx.array:
    """`x @ weight.T` with the table of an embedding layer; printed as `layer.as_linear(x)`."""
    return x @ weight.T


def at_add(x: mx.array, index: Any, update: mx.array) -> mx.array:
    """`x` with `update` added at `index`, duplicates accumulating; printed as `x.at[index].add(update)`."""
    return x.at[index].add(update)


def at_multiply(x: mx.array, index: Any, update: mx.array) -> mx.array:
    """`x` with `update` multiplied in at `index`; printed as `x.at[index].multiply(update)`."""
    return x.at[index].multiply(update)


def at_maximum(x: mx.array, index: Any, update: mx.array) -> mx.array:
    """`x` with the maximum taken at `index`; printed as `x.at[index].maximum(update)`."""
    return x.at[index].maximum(update)


def at_minimum(x: mx.array, index: Any, update: mx.array) -> mx.array:
    """`x` with the minimum taken at `index`; printed as `x.at[index].minimum(update)`."""
    return x.at[index].minimum(update)


def store(target: mx.array, index: Any, value: mx.array) -> mx.array:
    """`target`, a buffer or an input, after a write; printed as `target[index] = value`.

    Without an index it is a new value for all of it: `self.buffer = value`, `input[...] = value`.
    """
    if index is None:
        return mx.array(value)
    written = mx.array(target)
    written[index] = value
    return written


AT = {
    "add": at_add,
    "multiply": at_multiply,
    "maximum": at_maximum,
    "minimum": at_minimum,
}
