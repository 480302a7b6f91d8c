"""The order in which statements are written: those of branches and loops right before what they belong to."""

from __future__ import annotations

from typing import Any

import torch.fx

from torch2mlx.ir.regions import JOINS, Region, common, parts


def arranged(statements: list[Any]) -> list[Any]:
    """Statements by region.

    Args:
        statements: Each has a `region` and a `node`, the call that it is or None; the last one returns.
    """
    *body, result = statements
    regions = [statement.region for statement in body]
    if len(set(regions)) < 2:
        return statements
    by_region: dict[Region, list[Any]] = {}
    for statement in body:
        by_region.setdefault(statement.region, []).append(statement)

    def written(region: Region) -> list[Any]:
        found: list[Any] = []
        for statement in by_region.pop(region, []):
            node: torch.fx.Node | None = statement.node
            if node is not None and node.target in JOINS:
                for part in parts(node):
                    found += written(part)
            found.append(statement)
        return found

    ordered = written(common(regions))
    assert not by_region, "a branch is not in the function that joins it"
    return [*ordered, result]
