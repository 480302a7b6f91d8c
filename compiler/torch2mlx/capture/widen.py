"""A batch of one becomes a batch of two, since torch.export fixes sizes of 1."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from torch2mlx.capture.evaluation import evaluating, tolerance
from torch2mlx.capture.failure import first_line
from torch2mlx.silence import silent


def widened(
    model: torch.nn.Module, args: Any, kwargs: Any, notes: list[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example arguments with each row twice, where the model treats rows alike.

    Args:
        model: It is run on both, and is left as it was.
        args: Example positional arguments.
        kwargs: Example keyword arguments.
        notes: Why the batch stays at 1 is added here.

    Returns:
        Arguments and keyword arguments: the wide ones, or those given.
    """
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim]
    if not tensors or any(tensor.shape[0] != 1 for tensor in tensors):
        return args, kwargs
    wide = tree_unflatten([_doubled(leaf) for leaf in leaves], spec)
    why = _difference(model, (args, kwargs), wide)
    if why:
        notes.append(f"the batch size is fixed at 1: with 2, {why}")
        return args, kwargs
    return wide


def _doubled(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor) or not leaf.ndim:
        return leaf
    return torch.cat([leaf, leaf])


def _difference(model: torch.nn.Module, narrow: Any, wide: Any) -> str:
    """What else than the number of rows a wider batch changes; "" for nothing."""
    with silent(), evaluating(model):
        try:
            expected, got = _run(model, narrow), _run(model, wide)
        except Exception as error:
            return f"the model fails ({type(error).__name__}: {first_line(error)})"
        outputs, spec = tree_flatten(expected)
        wide_outputs, wide_spec = tree_flatten(got)
        if spec != wide_spec:
            return "the model returns another structure"
        pairs = [
            (number, one, two)
            for number, (one, two) in enumerate(zip(outputs, wide_outputs, strict=True))
            if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor)
        ]
        for number, one, two in pairs:
            if not _same_axes(one, two):
                shapes = f"{list(two.shape)} instead of {list(one.shape)}"
                return f"output {number} has the shape {shapes}"
        other = [number for number, one, two in pairs if not _same_rows(one, two)]
        if other and _is_repeatable(model, narrow, outputs):
            return f"output {other[0]} has other values in its first row"
        return ""


def _run(model: torch.nn.Module, example: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    args, kwargs = tree_map_only(torch.Tensor, torch.clone, example)
    # The buffers that forward writes to are as before afterwards
    with evaluating(model):
        return tree_map_only(torch.Tensor, torch.clone, model(*args, **kwargs))


def _same_axes(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.ndim == two.ndim and all(
        b in (a, 2 * a) for a, b in zip(one.shape, two.shape, strict=True)
    )


def _same_rows(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether the first half of `two` is `one`, up to rounding."""
    if one.is_meta or not one.is_floating_point():
        return True
    for axis, size in enumerate(one.shape):
        two = two.narrow(axis, 0, size)
    near = tolerance(one.dtype)
    finite = one[one.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    return torch.allclose(two, one, near, near * scale, equal_nan=True)


def _is_repeatable(model: torch.nn.Module, example: Any, outputs: list[Any]) -> bool:
    """Whether the model returns the same numbers whatever the random state is."""
    again = tree_flatten(_run(model, example, seed=1))[0]
    return all(
        torch.allclose(one, two, equal_nan=True)
        for one, two in zip(outputs, again, strict=True)
        if isinstance(one, torch.Tensor) and one.is_floating_point()
    )
