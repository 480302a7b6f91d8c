"""Emit: classes of small graphs become the source of `model_mlx.py`."""

from torch2mlx.emit.module import emit

__all__ = ["emit"]
