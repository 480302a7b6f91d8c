"""Passes: the captured ATen graph is made functional, simple and canonical, in place."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch2mlx.capture import Captured
from torch2mlx.errors import InputError
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.broadcasts import broadcasts
from torch2mlx.passes.constants import fold_constants
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.formulas import formulas
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.inline import inline
from torch2mlx.passes.masks import masks
from torch2mlx.passes.rearrange import rearrange
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes

Pass = Callable[[Captured], bool]

# In this order; what one pass uncovers, the same pass later in the list takes up.
PIPELINE: tuple[Pass, ...] = (
    inline,
    functionalise,
    simplify,
    fold_sizes,
    formulas,
    masks,
    broadcasts,
    drop_dead_code,
    fold_constants,
    formulas,
    scalars,
    simplify,
    rearrange,
    drop_dead_code,
)


def run(captured: Captured, disable: Collection[str] = ()) -> list[Decision]:
    """Apply every pass of `PIPELINE` to a captured graph.

    Args:
        captured: Its graph, weights, tensors and notes are changed in place.
        disable: Names of passes to leave out, e.g. "masks".

    Returns:
        What the passes decided, in order.

    Raises:
        InputError: There is no pass of a name in `disable`.
        UnsupportedError: The graph has a mutation that cannot be made functional.
    """
    known = dict.fromkeys(transform.__name__ for transform in PIPELINE)
    for name in disable:
        if name not in known:
            raise InputError(
                f"there is no pass {name!r}; the passes are {', '.join(known)}"
            )
    for transform in PIPELINE:
        if transform.__name__ not in disable:
            transform(captured)
    captured.graph.lint()
    return captured.decisions
