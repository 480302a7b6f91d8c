"""What the tests of fusions share: one fusion between the passes that prepare and follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.aten import check, ops
from torch2mlx.capture import Captured
from torch2mlx.passes.broadcasts import broadcasts
from torch2mlx.passes.constants import fold_constants
from torch2mlx.passes.dead_code import drop_dead_code
from torch2mlx.passes.formulas import formulas
from torch2mlx.passes.fuse import FUSIONS, fuse
from torch2mlx.passes.masks import masks
from torch2mlx.passes.scalars import scalars
from torch2mlx.passes.simplify import simplify
from torch2mlx.passes.sizes import fold_sizes

BEFORE = (simplify, fold_sizes, formulas, masks, broadcasts, drop_dead_code)
CONSTANTS = (fold_constants, scalars, simplify, drop_dead_code)


def fused(
    name: str,
    model: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    tolerance: float = 1e-6,
    **options: Any,
) -> Captured:
    """`model` captured, with only the fusion `name` (or several, "a b"), and compared with PyTorch."""
    disable = [f.name for f in FUSIONS if f.name not in name.split()]

    def only(captured: Captured) -> bool:
        return fuse(captured, disable)

    passes = (*BEFORE, *CONSTANTS, only, drop_dead_code)
    return check(passes, model, args, *others, tolerance=tolerance, **options)


def decisions(captured: Captured, name: str) -> list[tuple[str, str]]:
    """What was decided about the fusion `name`: (kind, why)."""
    return [(d.kind, d.why) for d in captured.decisions if d.what == name]


def left_alone(
    name: str, operator: str, function: Callable[..., Any], *args: Any
) -> None:
    """The fusion `name` does not make `operator` of `function`."""
    captured = fused(name, function, args, tolerance=0.0, dynamic=False)
    assert not ops(captured)[operator], captured.graph
