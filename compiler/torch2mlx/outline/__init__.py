"""Outline: from one flat lowered graph back to classes, one per distinct module of the PyTorch model."""

from torch2mlx.outline.driver import Outlined, outline

__all__ = ["Outlined", "outline"]
