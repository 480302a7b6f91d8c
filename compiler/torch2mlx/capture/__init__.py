"""Capture: an `nn.Module` and example inputs become one graph of ATen operators."""

from torch2mlx.capture.captured import Captured, Input
from torch2mlx.capture.export import capture

__all__ = ["Captured", "Input", "capture"]
