"""The tree of modules: nested by path, equal neighbours of a list folded."""

from __future__ import annotations

from dataclasses import replace

from torch2mlx import Analysis
from torch2mlx.analysis.findings import ModuleRow, Verdict
from torch2mlx.analysis.rendering.tree import Node, tree


def row(path: str, parameters: int = 1) -> ModuleRow:
    return ModuleRow(
        path, "m.C", "", Verdict.MAPS, "", parameters, 2, {Verdict.MAPS: 3}
    )


def shown(node: Node) -> dict:
    return {child.label: shown(child) for child in node.children}


def test_equal_neighbours_are_one_node() -> None:
    paths = ["", "a", "a.0", "a.0.x", "a.1", "a.1.x", "a.2", "a.2.x", "b", "c"]
    root = tree([row(path) for path in paths])
    assert root is not None
    # b and c are equal too, but not items of a list
    assert shown(root) == {"a": {"0–2": {"x": {}}}, "b": {}, "c": {}}
    run = root.children[0].children[0]
    assert (run.count, run.parameters, run.flops, run.calls) == (3, 3, 6, 9)


def test_what_differs_is_not_folded() -> None:
    rows = [row(path) for path in ["", "0", "1", "2", "2.x", "3", "3.y", "4", "5"]]
    rows[2] = row("1", parameters=7)
    rows[-1] = replace(rows[-1], verdict=Verdict.REFUSED)
    root = tree(rows)
    assert root is not None
    assert shown(root) == {
        "0": {},
        "1": {},
        "2": {"x": {}},
        "3": {"y": {}},
        "4": {},
        "5": {},
    }


def test_a_fold_counts_what_it_stands_for(analysis: Analysis) -> None:
    root = tree(analysis.modules)
    assert root is not None

    def count(node: Node) -> int:
        return node.count * (1 + sum(count(child) for child in node.children))

    assert count(root) == len(analysis.modules)


def test_no_modules_no_tree() -> None:
    assert tree([]) is None
