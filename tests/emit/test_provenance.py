"""Where generated lines come from."""

from __future__ import annotations

import ast
from pathlib import Path

import black
import pytest
import torch

import torch2mlx
from tests.verify import models
from tests.verify.models import MLP, ConvNet, bert, build
from torch2mlx.api import Program
from torch2mlx.emit.module import MODE
from torch2mlx.emit.provenance import Origin, annotated, origins, shown

# What no line of the author's stands for
NOBODYS = ("super().__init__()", "self.freeze(", "if ", "raise ValueError(")


def program_of(name: str) -> Program:
    if name == "bert":
        model, inputs = bert()
        return torch2mlx.compile(model, (), inputs)
    x = torch.randn(2, 8) if name == "mlp" else torch.randn(2, 3, 12, 12)
    return torch2mlx.compile(build({"mlp": MLP, "conv": ConvNet}[name]), (x,))


def found_in(program: Program, source: str | None = None) -> list[Origin]:
    return origins(source or program.source, program.outlined, program.captured)


def text_of(program: Program, origin: Origin) -> str:
    first, last = origin.lines
    return "\n".join(program.source.splitlines()[first - 1 : last]).strip()


@pytest.mark.parametrize("name", ["mlp", "conv", "bert"])
def test_every_statement_has_an_origin(name: str):
    program = program_of(name)
    found = found_in(program)
    calls = [origin for origin in found if origin.made is not None]
    assert len(calls) > 2
    assert not [origin for origin in found if origin.edited]
    without = [text_of(program, o) for o in found if not o.sources]
    left = [text for text in without if not text.startswith(NOBODYS)]
    sizes = (".shape", ".shape[1]", "args.hidden_size", "args.max_position_embeddings")
    assert [text for text in left if not text.endswith(sizes)] == []


def test_the_lines_are_the_authors():
    program = program_of("mlp")
    for origin in found_in(program):
        for frame in origin.sources:
            line = Path(frame.file).read_text().splitlines()[frame.line - 1]
            text = text_of(program, origin)
            if "layer(x)" in text:
                assert "block(x)" in line
            elif text.startswith("return self.head"):
                assert "self.head(x)" in line
            elif text.startswith("class"):
                assert line == text


@pytest.mark.parametrize("name", ["mlp", "conv", "bert"])
def test_comments_change_neither_code_nor_format(name: str):
    program = program_of(name)
    text = annotated(program.source, found_in(program))
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(program.source))
    assert black.format_str(text, mode=MODE) == text
    # What has comments has the same origins, at other lines
    again, before = found_in(program, text), found_in(program)
    assert [o.sources for o in again] == [o.sources for o in before]
    assert annotated(program.source, before) == text


def test_an_edited_file():
    program = program_of("mlp")
    code = "        return self.head(x)\n"
    assert code in program.source
    source = program.source.replace(code, f"        print(x)\n{code}").replace(
        "nn.gelu(", "nn.silu("
    )
    found = {
        ast.unparse(o.node).partition("\n")[0]: o for o in found_in(program, source)
    }
    added = found["print(x)"]
    assert added.edited
    assert added.sources == ()
    changed = next(o for text, o in found.items() if "nn.silu(" in text)
    assert changed.edited
    assert any("gelu" in frame.code for frame in changed.sources)
    assert not found["return self.head(x)"].edited


def test_paths_are_those_of_imports(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    assert shown(str(tmp_path / "pkg" / "net.py")) == "pkg/net.py"
    assert shown(models.__file__) == "tests/verify/models.py"
    assert shown("/nowhere/net.py") == "/nowhere/net.py"
