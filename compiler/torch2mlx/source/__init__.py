"""Source: a spec string -> the model, example inputs, and how these were found."""

from __future__ import annotations

from torch2mlx.source.load import Source, load

__all__ = ["Source", "load"]
