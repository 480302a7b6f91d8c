"""Running a model on fake tensors: nothing is computed and no memory is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from torch2mlx.capture.valueless import device_of, standing_in
from torch2mlx.errors import InputError
from torch2mlx.silence import silent
from torch2mlx.source.user_code import blame

# What a model with real values may well do
NO_VALUES = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.UnsupportedOperatorException,
)


def check_inputs(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any], description: str
) -> None:
    """Check that `model` runs on the inputs that the user gives.

    Args:
        model: In evaluation mode.
        args: Positional arguments of `forward`.
        kwargs: Keyword arguments.
        description: What they are, for the message.

    Raises:
        InputError: It does not; one line says where.
    """
    mode = fake_mode()
    device = device_of(model)
    fake_args, fake_kwargs = tree_map_only(
        torch.Tensor,
        lambda tensor: mode.from_tensor(tensor.to(device)),
        (args, dict(kwargs)),
    )
    error = dry_run(model, fake_args, fake_kwargs, mode)
    if error is not None and not isinstance(error, NO_VALUES):
        raise InputError(f"--input: with {description} forward() fails: {blame(error)}")


def fake_mode() -> FakeTensorMode:
    """The mode in which fake tensors for `dry_run` are made."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def dry_run(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any], mode: FakeTensorMode
) -> Exception | None:
    """What `model` raises when it is called with fake tensors of `mode`, if anything."""
    try:
        with standing_in(model), mode, torch.no_grad(), silent():
            model(*args, **kwargs)
    except Exception as error:
        return error
    return None
