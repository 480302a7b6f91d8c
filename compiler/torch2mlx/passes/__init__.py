"""Passes: the captured ATen graph is made functional, simple and canonical, in place."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch2mlx.capture import Captured
from torch2mlx.errors import InputError
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.broadcasts import broadcasts
from torch2mlx.passes.common import common
from torch2mlx.passes.constants import fold_constants
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.fold_batch_norm import fold_batch_norm
from torch2mlx.passes.fold_parameters import fold_parameters
from torch2mlx.passes.formulas import formulas
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.fuse import NAMES as FUSIONS
from torch2mlx.passes.fuse import fuse
from torch2mlx.passes.growing import growing
from torch2mlx.passes.inline import inline
from torch2mlx.passes.integers import integers
from torch2mlx.passes.leading import leading
from torch2mlx.passes.libraries import libraries
from torch2mlx.passes.masks import masks
from torch2mlx.passes.rearrange import rearrange
from torch2mlx.passes.regions import regions
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.selects import selects
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes
from torch2mlx.passes.strides import strides
from torch2mlx.passes.tables import tables
from torch2mlx.passes.wide_numbers import wide_numbers

Pass = Callable[[Captured], bool]

# In this order; what one pass uncovers, the same pass later in the list takes up.
PIPELINE: tuple[Pass, ...] = (
    regions,
    inline,
    libraries,
    strides,
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
    integers,
    wide_numbers,
    simplify,
    fuse,
    tables,
    broadcasts,
    leading,
    rearrange,
    selects,
    common,
    growing,
    drop_dead_code,
)

LAYOUT = "layout"


def run(
    captured: Captured, disable: Collection[str] = (), *, fold_bn: bool = False
) -> list[Decision]:
    """Apply every pass of `PIPELINE` to a captured graph.

    Args:
        captured: Its graph, weights, tensors and notes are changed in place.
        disable: Names of passes and of fusions to leave out, e.g. "masks", "rms_norm". "layout" is known,
            too: a later stage.
        fold_bn: Whether to fold what inference does not change: every BatchNorm into the layer before it,
            what is computed from weights alone into arrays of their own.

    Returns:
        What the passes decided, in order.

    Raises:
        InputError: There is no pass of a name in `disable`.
        UnsupportedError: The graph has a mutation that cannot be made functional.
    """
    known = dict.fromkeys(transform.__name__ for transform in PIPELINE)
    known |= dict.fromkeys((*FUSIONS, LAYOUT))
    for name in disable:
        if name not in known:
            raise InputError(
                f"there is no pass {name!r}; the passes are {', '.join(known)}"
            )
    for transform in PIPELINE:
        if transform.__name__ in disable:
            continue
        if transform is fuse:
            fuse(captured, disable)
        else:
            transform(captured)
    if fold_bn:
        fold_batch_norm(captured)
        fold_parameters(captured)
        drop_dead_code(captured)
    captured.graph.lint()
    return captured.decisions
