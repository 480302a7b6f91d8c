"""The rules of the output's style, as a linter over golden/."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import check_invariants

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("*/model_mlx.py"))


@pytest.fixture(params=FILES, ids=[path.parent.name for path in FILES])
def source(request: pytest.FixtureRequest) -> str:
    return request.param.read_text()


def test_there_are_goldens() -> None:
    assert len(FILES) >= 4


def test_invariants(source: str) -> None:
    check_invariants(source)


def test_nothing_unused() -> None:
    """No unused import, variable or name that is not defined."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F,E4,E7,E9,W",
    ]
    done = subprocess.run([*command, *map(str, FILES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_lines_are_short(source: str) -> None:
    assert max(map(len, source.splitlines())) <= 88


def test_few_comments(source: str) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    assert len(comments) <= 0.02 * len(source.splitlines())
    assert not [c for c in comments if re.search(r"TODO|FIXME|aten|node", c.string)]


def test_numbers_as_people_write_them(source: str) -> None:
    assert not re.search(r"\de[+-]?0\d", source)
    assert not re.search(r"\*\* ?\(-[\d.]+\)", source)
    assert "--" not in source


def functions(source: str) -> Iterator[ast.FunctionDef]:
    return (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))


def classes(source: str) -> list[ast.ClassDef]:
    return [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)]


def test_names_say_something(source: str) -> None:
    """No name of the fx graph (`add_17`, `view_3`), no numbered variable beyond the second."""
    for function in functions(source):
        stored = [
            n.id
            for n in ast.walk(function)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        ]
        assert not [n for n in stored if re.search(r"_\d+$|[3-9]$|\d\d$", n)]
    assert not [
        c.name for c in classes(source) if "_" in c.name or c.name[-1].isdigit()
    ]


def test_constructors_begin_with_super(source: str) -> None:
    for function in functions(source):
        if function.name == "__init__":
            assert ast.unparse(function.body[0]) == "super().__init__()"


def test_every_attribute_is_used(source: str) -> None:
    for cls in classes(source):
        made, used = set(), set()
        for node in ast.walk(cls):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                (made if isinstance(node.ctx, ast.Store) else used).add(node.attr)
        optional = {
            node.left.value
            for node in ast.walk(cls)
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant)
        }
        assert made - {"training"} <= used | optional


def test_calls_are_annotated(source: str) -> None:
    for function in functions(source):
        if function.name == "__call__":
            assert function.returns is not None
            assert all(arg.annotation for arg in function.args.args[1:])


def test_calls_are_short(source: str) -> None:
    lengths = [
        (f.end_lineno or f.lineno) - f.body[0].lineno + 1
        for f in functions(source)
        if f.name == "__call__"
    ]
    assert sorted(lengths)[len(lengths) // 2] <= 10
    assert max(lengths) <= 40


def test_no_transpose_undoes_another(source: str) -> None:
    assert not re.search(r"transpose\(0, 2, 3, 1\)\.transpose\(0, 3, 1, 2\)", source)
    assert not re.search(r"swapaxes\((\d), (\d)\)\.swapaxes\(\1, \2\)", source)


def test_header(source: str) -> None:
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    assert docstring and "compiled from" in docstring.partition("\n\n")[0]
    assert "__main__" not in source
    assert "torch2mlx" not in source
    last = tree.body[-1]
    name = ast.unparse(last.targets[0]) if isinstance(last, ast.Assign) else ""
    assert (last.name if isinstance(last, ast.ClassDef) else name) == "Model"
