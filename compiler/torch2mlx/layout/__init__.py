"""Layout: which arrays are stored channels-last, so that the fewest bytes are transposed."""

from torch2mlx.layout.assign import assign_layouts, keep_layouts
from torch2mlx.layout.pins import IOLayout
from torch2mlx.layout.rewrite import Transpose

__all__ = ["IOLayout", "Transpose", "assign_layouts", "keep_layouts"]
