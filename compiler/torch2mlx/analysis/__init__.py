"""The portability report: what of a model compiles, what does not, and why, before it is ported."""

from torch2mlx.analysis.driver import analyze
from torch2mlx.analysis.result import Analysis

__all__ = ["Analysis", "analyze"]
