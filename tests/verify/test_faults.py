"""Five planted faults, and others: the search names the module, the line and the kind of fault."""

from __future__ import annotations

import ast
import dataclasses
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import torch2mlx
from tests import test_control_flow as control_flow
from tests import test_state as state
from tests.verify.models import MLP, ConvNet, build, plant_eps, plant_gelu
from torch2mlx.api import Program
from torch2mlx.emit.provenance import annotated, origins
from torch2mlx.verify import Culprit


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x, visible):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2)
        hidden = torch.logical_not(visible)[:, None]
        scores = scores.masked_fill(hidden, -1e4)
        return scores.softmax(-1) @ v


class Masked(nn.Module):
    """Attention that leaves positions out, between two linear layers."""

    def __init__(self):
        super().__init__()
        self.before = nn.Linear(8, 8)
        self.attention = Attention()
        self.after = nn.Linear(8, 3)

    def forward(self, x, visible):
        return self.after(self.attention(self.before(x), visible))


def masked_program() -> Program:
    visible = torch.ones(2, 5, dtype=torch.bool)
    visible[:, 3:] = False
    return torch2mlx.compile(build(Masked), (torch.randn(2, 5, 8), visible))


def mlp_program() -> Program:
    return torch2mlx.compile(build(MLP), (torch.randn(2, 8),))


def line_with(program: Program, text: str) -> int:
    (line,) = (n for n, s in enumerate(program.source.splitlines(), 1) if text in s)
    return line


def culprit_of(program: Program) -> Culprit:
    found = program.verify()
    assert not found.ok
    assert found.culprit is not None, found.notes
    return found.culprit


def edited(program: Program, old: str, new: str) -> Program:
    assert program.source.count(old) == 1
    return program.with_source(program.source.replace(old, new))


def with_plan(program: Program, **changes: dict) -> Program:
    entries = [
        dataclasses.replace(entry, **changes.get(entry.key.replace(".", "_"), {}))
        for entry in program.plan.entries
    ]
    program.plan = dataclasses.replace(program.plan, entries=tuple(entries))
    return program


def test_a_wrong_permutation():
    program = torch2mlx.compile(build(ConvNet), (torch.randn(2, 3, 12, 12),))
    with_plan(program, conv_weight={"steps": (("transpose", (0, 3, 2, 1)),)})
    culprit = culprit_of(program)
    assert culprit.path == "conv"
    assert culprit.mlx_line == line_with(program, "self.conv = nn.Conv2d")
    assert culprit.statement is not None
    assert culprit.statement.line == line_with(program, "self.conv(self.pool(")
    (source,) = culprit.statement.sources
    assert source.endswith("x = self.conv(self.pool(self.stem(x)))")
    assert culprit.cause == "layout"
    assert "conv.weight has PyTorch's values at other places" in culprit.evidence


def test_another_epsilon(monkeypatch):
    plant_eps(monkeypatch, 8)
    program = mlp_program()
    culprit = culprit_of(program)
    assert culprit.path == "blocks.0.norm"
    assert culprit.mlx_line == line_with(
        program, "self.norm = nn.LayerNorm(8, eps=0.1)"
    )
    assert culprit.statement is not None
    assert culprit.statement.line == line_with(program, "self.norm(x)")
    (source,) = culprit.statement.sources
    assert source.endswith("y = self.up(self.norm(x))")
    assert culprit.cause == "precision"


def test_the_mask_the_other_way_round():
    program = masked_program()
    program = edited(program, "mx.logical_not(visible)", "visible")
    culprit = culprit_of(program)
    assert culprit.path == "attention"
    assert culprit.mlx_class == "Attention"
    assert culprit.statement is not None
    assert "visible" in culprit.statement.code
    assert culprit.statement.edited
    assert any("hidden" in source for source in culprit.statement.sources)
    assert culprit.cause == "mask"


def test_another_gelu(monkeypatch):
    plant_gelu(monkeypatch)
    program = mlp_program()
    culprit = culprit_of(program)
    assert culprit.path == "blocks.0"
    assert culprit.statement is not None
    assert culprit.statement.line == line_with(program, "nn.gelu_fast_approx(")
    (source,) = culprit.statement.sources
    assert source.endswith("y = nn.functional.gelu(y)")
    assert culprit.cause == "precision"


def test_another_gelu_by_an_edit():
    program = edited(mlp_program(), "nn.gelu(", "nn.gelu_fast_approx(")
    culprit = culprit_of(program)
    assert culprit.path == "blocks.0"
    assert culprit.statement is not None
    assert culprit.statement.line == line_with(program, "nn.gelu_fast_approx(")
    assert culprit.statement.edited
    assert any(s.endswith("nn.functional.gelu(y)") for s in culprit.statement.sources)
    assert culprit.cause == "precision"
    assert culprit.lines()[2].startswith(f"    line {culprit.statement.line} (edited")


def test_a_swapped_weight():
    program = mlp_program()
    one, other = ("blocks.0.up.weight",), ("blocks.1.up.weight",)
    with_plan(
        program,
        blocks_0_up_weight={"sources": other},
        blocks_1_up_weight={"sources": one},
    )
    culprit = culprit_of(program)
    assert culprit.path == "blocks.0.up"
    assert culprit.mlx_line == line_with(program, "self.up = nn.Linear")
    assert culprit.cause == "state"
    assert culprit.evidence.endswith("but those of blocks.1.up.weight")


def test_a_statement_that_was_added():
    program = mlp_program()
    code = "        return self.head(x)\n"
    program = edited(program, code, f"        x = x * 1.5\n{code}")
    culprit = culprit_of(program)
    assert culprit.path == ""
    assert culprit.statement is not None
    assert culprit.statement.code == "x = x * 1.5"
    assert culprit.statement.edited


def test_one_instance_of_a_class():
    """The first block agrees: what is compared is the second one's."""
    program = mlp_program()
    program = edited(program, "for _ in range(2)]", "for i in range(2)]\n")
    code = "x + self.down("
    program = edited(program, code, "x + self.scale * self.down(")
    code = "        self.head = "
    program = edited(program, code, f"        self.blocks[1]._scale = 1.5\n{code}")
    program = program.with_source(
        program.source.replace("self.scale", "getattr(self, '_scale', 1.0)")
    )
    culprit = culprit_of(program)
    assert culprit.path == "blocks.1"
    assert culprit.statement is not None
    assert culprit.statement.code.startswith("return x + ")


def test_another_dtype():
    program = mlp_program()
    code = "return self.head(x)"
    program = edited(program, code, f"{code}.astype(mx.float16)")
    culprit = culprit_of(program)
    assert culprit.path == ""
    assert culprit.cause == "dtype"


def test_an_axis_that_moved():
    program = masked_program()
    code = "return self.after("
    program = edited(program, code, "return 1.0 * self.after(")
    program = program.with_source(
        program.source.replace("1.0 * self.after(", "mx.swapaxes(self.after(").replace(
            "visible))\n", "visible)), 0, 0)[::-1]\n"
        )
    )
    culprit = culprit_of(program)
    assert culprit.path == ""
    assert culprit.cause == "layout"


def test_nan_in_pytorch_itself():
    class Roots(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = torch.sqrt(self.fc(x))
            return y + 1

    found = torch2mlx.compile(build(Roots), (torch.randn(8, 4),)).verify()
    assert found.not_finite is not None
    assert found.not_finite.what == "NaN"
    assert found.not_finite.op == "aten.sqrt.default"
    assert found.not_finite.source_line.endswith("y = torch.sqrt(self.fc(x))")
    assert str(found.not_finite) in found.lines()


def test_nan_in_mlx_alone():
    program = edited(mlp_program(), "x + self.down(", "mx.sqrt(x - 9) + self.down(")
    culprit = culprit_of(program)
    assert culprit.path == "blocks.0"
    assert "NaN" in culprit.evidence


def test_a_script_that_shows_it(monkeypatch, tmp_path: Path, capsys):
    plant_eps(monkeypatch, 8)
    found = mlp_program().verify(repro=tmp_path / "repro.py")
    assert found.notes[-1] == f"a script that shows it: {tmp_path / 'repro.py'}"
    text = (tmp_path / "repro.py").read_text()
    assert text.startswith('"""blocks.0.norm (LayerNorm): PyTorch and MLX differ')
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(tmp_path / "repro.py"))
    assert status.value.code == 1
    assert "example inputs: output [2, 8] differs by" in capsys.readouterr().out


def test_two_seeds_at_one_size():
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),), dynamic=False)
    names = [case.name for case in program.verify().cases]
    assert names[:3] == ["example inputs", "random inputs", "other random inputs"]


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (control_flow.Choice, "x * 2", "x * 3"),
        (control_flow.Repeat, "* scale", "/ scale"),
        (control_flow.Rows, "mx.tanh(", "mx.sinh("),
        (control_flow.Recurrent, "h[0] * 2", "h[0] * 3"),
        (state.Cache, "mx.sum(", "mx.max("),
    ],
)
def test_branches_loops_and_writes(cls, old: str, new: str):
    """Where values cannot be compared one by one, the module is still named."""
    program = torch2mlx.compile(build(cls), (torch.randn(2, 4),))
    found = origins(program.source, program.outlined, program.captured)
    text = annotated(program.source, found)
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(program.source))
    assert old in program.source
    culprit = culprit_of(program.with_source(program.source.replace(old, new)))
    assert culprit.path == ""
    assert "nothing closer is found" not in culprit.evidence
