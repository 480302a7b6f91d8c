"""The counter of kernels that a benchmark is given as a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

Counter = Callable[..., dict[str, Any]]


def load_counter(path: Path) -> Counter:
    """The function `cost` of a Python file: `cost(function, *inputs)` counts what a call launches."""
    spec = importlib.util.spec_from_file_location("counter_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cost
