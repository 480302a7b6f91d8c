"""Run a function through capture, passes, lowering and the MLX interpreter, and compare it with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from torch.utils import _pytree as pytree

from torch2mlx import passes
from torch2mlx.arrays import from_numpy
from torch2mlx.capture import Captured, capture
from torch2mlx.lower.driver import Lowered, lower
from torch2mlx.lower.interpret import MLXInterpreter

torch.set_num_threads(1)


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def to_mlx(tensor: torch.Tensor) -> mx.array:
    """A tensor as an MLX array of the same dtype; float64 as float32."""
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return to_mlx(tensor.float()).astype(mx.bfloat16)
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    return from_numpy(tensor.numpy())


def to_numpy(array: Any) -> np.ndarray:
    """An MLX array or a tensor as a numpy array; bfloat16 as float32."""
    if isinstance(array, torch.Tensor):
        array = array.detach().resolve_conj().resolve_neg()
        return array.float().numpy() if array.dtype == torch.bfloat16 else array.numpy()
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)


def lowered(
    model: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    dynamic: Any = "auto",
) -> Lowered:
    """The lowered graph of a module or function."""
    return lower(_simplified(as_module(model), args, dynamic))


def _simplified(
    module: torch.nn.Module, args: tuple[Any, ...], dynamic: Any
) -> Captured:
    captured = capture(module, args, dynamic=dynamic)
    passes.run(captured)
    return captured


def run_lowered(
    model: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    dynamic: Any = "auto",
    tolerance: float = 1e-5,
) -> list[mx.array]:
    """Lower `model` for `args`, and compare it with PyTorch on `args` and on `others`.

    Args:
        model: A module or a function of tensors.
        args: Its arguments for the capture.
        others: Further arguments, of other sizes.
        dynamic: As `capture` has it.
        tolerance: Absolute, and relative to PyTorch's values.

    Returns:
        The outputs for `args`.

    Raises:
        AssertionError: Shape, class of dtype or numbers differ.
    """
    module = as_module(model)
    captured = _simplified(module, args, dynamic)
    program = lower(captured)
    arrays = {key: to_mlx(tensor) for key, tensor in captured.tensors.items()}
    results: list[mx.array] = []
    for case in (args, *others):
        with torch.no_grad():
            expected = pytree.tree_leaves(module(*case))
        inputs = [to_mlx(a) for a in pytree.tree_leaves(case) if torch.is_tensor(a)]
        got = list(MLXInterpreter(program, arrays).run(*inputs))[-len(expected) :]
        for want, have in zip(expected, got, strict=True):
            _compare(want, have, tolerance)
        results = results or got
    return results


def as_module(model: torch.nn.Module | Callable[..., Any]) -> torch.nn.Module:
    """A module in evaluation, or a function as one."""
    module = model if isinstance(model, torch.nn.Module) else _Function(model)
    return module.eval()


def _compare(want: Any, have: Any, tolerance: float) -> None:
    if not isinstance(want, torch.Tensor):
        assert have == want
        return
    expected, actual = to_numpy(want), to_numpy(have)
    assert actual.shape == expected.shape
    kinds = {"i": "i", "u": "i"}
    assert kinds.get(actual.dtype.kind, actual.dtype.kind) == kinds.get(
        expected.dtype.kind, expected.dtype.kind
    ), f"dtype {actual.dtype} for {expected.dtype}"
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
