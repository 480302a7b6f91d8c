"""How the tables of operator tests are written: one line per case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def case(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """A parametrised case: `function(*args)` in PyTorch, by name."""
    return pytest.param(function, args, id=name)


def floats(*values: float) -> torch.Tensor:
    """A float32 vector."""
    return torch.tensor(values)


def ints(*values: int) -> torch.Tensor:
    """An int64 vector."""
    return torch.tensor(values)


def bools(*values: int) -> torch.Tensor:
    """A boolean vector, from 0 and 1."""
    return torch.tensor(values, dtype=torch.bool)


NAN, INF = float("nan"), float("inf")
