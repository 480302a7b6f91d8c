"""No capture fails for lack of a solution: torch.export solves what it found of sizes, to suggest ranges.

Whether a graph is right for a size is decided in `capture.conditions`, which needs no solution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.fx.experimental.symbolic_shapes import DimConstraints


@contextlib.contextmanager
def solved_where_possible() -> Iterator[None]:
    """While this is open, torch.export goes on where sympy has no way to solve for a size."""
    before = DimConstraints.solve

    def solve(self: DimConstraints) -> None:
        with contextlib.suppress(NotImplementedError):
            before(self)

    DimConstraints.solve = solve  # type: ignore[method-assign]
    try:
        yield
    finally:
        DimConstraints.solve = before  # type: ignore[method-assign]
