"""The functions whose results have sizes, or are numbers, that depend on the values of their arguments.

They evaluate these while the model runs. A lowering that calls one gives results of the same ranks as the
captured operator's, whose sizes for the example inputs are known.
"""

from __future__ import annotations

from torch2mlx.ir import intrinsics
from torch2mlx_templates import helpers

EVALUATING = {
    intrinsics.item,
    helpers.argwhere,
    helpers.bincount,
    helpers.masked_select,
    helpers.nonzero,
    helpers.repeat_interleave,
    helpers.repeated,
    helpers.split_at,
    helpers.unique,
    helpers.unique_consecutive,
}
