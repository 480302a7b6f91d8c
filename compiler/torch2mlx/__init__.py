"""torch2mlx: compiles a PyTorch `nn.Module` into standalone, readable MLX source code.

Importing this package loads no other one: each name is fetched at its first use, so that the
weight tools run where torch and mlx are not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch2mlx.analysis import Analysis, analyze
    from torch2mlx.api import Program, compile
    from torch2mlx.decorator import export
    from torch2mlx.errors import (
        CaptureError,
        ConflictError,
        InputError,
        Torch2MLXError,
        Unsupported,
        UnsupportedError,
    )
    from torch2mlx.extend import register_layer, register_op
    from torch2mlx.restore import to_torch
    from torch2mlx.verify.folder import verify_folder

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "CaptureError",
    "ConflictError",
    "InputError",
    "Program",
    "Torch2MLXError",
    "Unsupported",
    "UnsupportedError",
    "__version__",
    "analyze",
    "compile",
    "export",
    "register_layer",
    "register_op",
    "to_torch",
    "verify_folder",
]

_MODULES = {
    "analyze": "torch2mlx.analysis",
    "Analysis": "torch2mlx.analysis",
    "compile": "torch2mlx.api",
    "Program": "torch2mlx.api",
    "export": "torch2mlx.decorator",
    "register_layer": "torch2mlx.extend",
    "register_op": "torch2mlx.extend",
    "to_torch": "torch2mlx.restore",
    "verify_folder": "torch2mlx.verify.folder",
    "CaptureError": "torch2mlx.errors",
    "ConflictError": "torch2mlx.errors",
    "InputError": "torch2mlx.errors",
    "Torch2MLXError": "torch2mlx.errors",
    "Unsupported": "torch2mlx.errors",
    "UnsupportedError": "torch2mlx.errors",
}

# What the extra `compile` installs, by import name.
_COMPILE_EXTRA = {"torch", "mlx", "jinja2", "black", "rich", "networkx", "pygments"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'torch2mlx' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _COMPILE_EXTRA:
            raise
        raise ModuleNotFoundError(
            f"torch2mlx.{name} needs {package}: pip install 'torch2mlx[compile]'",
            name=package,
        ) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
