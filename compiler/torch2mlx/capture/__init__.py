"""Capture: an `nn.Module` and example inputs become one graph of ATen operators."""

from torch2mlx.capture.export import Captured, Input, capture

__all__ = ["Captured", "Input", "capture"]
