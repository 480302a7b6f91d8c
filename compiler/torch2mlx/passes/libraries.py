"""Operators that libraries bring along, as those that they stand for.

y = transformers.grouped_mm_fallback(x, w, ends)     ->     y = torch2mlx.grouped_mm(x, w, ends)
"""

from __future__ import annotations

from torch._ops import OpOverload

from torch2mlx.capture import Captured
from torch2mlx.ir.operators import GROUPED_MM

# Known by name: a library need not be installed
EQUIVALENTS: dict[str, OpOverload] = {
    "transformers::grouped_mm_fallback": GROUPED_MM,
}


def libraries(captured: Captured) -> bool:
    """Replace each call of an operator that is known under another name."""
    changed = False
    for node in captured.graph.nodes:
        target = node.target
        name = target.name() if isinstance(target, OpOverload) else ""
        if name in EQUIVALENTS:
            node.target = EQUIVALENTS[name]
            changed = True
    return changed
