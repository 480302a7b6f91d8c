"""Planted faults: the verification fails, and says where."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import torch2mlx
from tests.verify.models import (
    MLP,
    ConvNet,
    assert_unchanged,
    bert,
    build,
    fingerprint,
    plant_eps,
    plant_gelu,
)
from torch2mlx import passes
from torch2mlx.api import Program
from torch2mlx.verify import driver, operators

aten = torch.ops.aten


def mlp_program() -> Program:
    return torch2mlx.compile(build(MLP), (torch.randn(2, 8),))


def line_with(program: Program, text: str) -> int:
    lines = program.source.splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


def test_wrong_epsilon_of_a_layer(monkeypatch):
    plant_eps(monkeypatch, 8)
    program = mlp_program()
    before = fingerprint(program.model)
    found = program.verify()
    assert not found.ok
    culprit = found.culprit
    assert culprit is not None
    assert culprit.path == "blocks.0.norm"
    assert culprit.torch_class == "LayerNorm"
    assert culprit.mlx_class == "nn.LayerNorm"
    assert culprit.mlx_line == line_with(program, "self.norm = nn.LayerNorm")
    assert culprit.max_error > 1e-3
    assert culprit.why == operators.IN_LOWERING
    assert culprit.operator is not None
    assert culprit.operator.op == "aten.layer_norm.default"
    assert_unchanged(program.model, before)


def test_another_gelu(monkeypatch):
    plant_gelu(monkeypatch)
    program = mlp_program()
    culprit = program.verify().culprit
    assert culprit is not None
    assert culprit.path == "blocks.0"
    assert culprit.mlx_class == "Block"
    assert culprit.mlx_line == line_with(program, "class Block(nn.Module)")
    assert "models.py:" in culprit.torch_source
    assert culprit.operator is not None
    assert culprit.operator.op == "aten.gelu.default"
    assert culprit.operator.module == "blocks.0 (Block)"
    assert culprit.operator.source_line.endswith("y = nn.functional.gelu(y)")


def test_a_tight_tolerance_tells_both_exact_gelus_apart(monkeypatch):
    plant_gelu(monkeypatch, "gelu_approx")
    assert not mlp_program().verify(absolute=1e-6, relative=1e-5).ok


def test_a_wrong_permutation_of_a_weight():
    program = torch2mlx.compile(build(ConvNet), (torch.randn(2, 3, 12, 12),))
    entries = list(program.plan.entries)
    index = next(i for i, entry in enumerate(entries) if entry.key == "conv.weight")
    assert entries[index].steps == (("transpose", (0, 2, 3, 1)),)
    entries[index] = dataclasses.replace(
        entries[index], steps=(("transpose", (0, 3, 2, 1)),)
    )
    program.plan = dataclasses.replace(program.plan, entries=tuple(entries))
    found = program.verify()
    assert not found.ok
    assert found.culprit is not None
    assert found.culprit.path == "conv"
    assert found.culprit.mlx_line == line_with(program, "self.conv = nn.Conv2d")
    assert found.culprit.why == operators.IN_EMISSION
    assert found.culprit.operator is None


def test_wrong_code_in_one_layer_of_bert(monkeypatch):
    plant_gelu(monkeypatch)
    model, inputs = bert()
    culprit = torch2mlx.compile(model, (), inputs).verify().culprit
    assert culprit is not None
    assert culprit.path == "encoder.layer.0.intermediate"
    assert culprit.torch_class == "BertIntermediate"
    assert culprit.operator is not None
    assert culprit.operator.op == "aten.gelu.default"


def test_wrong_code_between_modules():
    program = mlp_program()
    program.source = program.source.replace(
        "return self.head(x)", "return self.head(x) + 1"
    )
    found = program.verify()
    assert found.culprit is not None
    assert found.culprit.path == ""
    assert found.culprit.max_error == pytest.approx(1, rel=1e-5)
    assert found.culprit.why == operators.IN_EMISSION
    assert "culprit: the model itself (MLP" in "\n".join(found.lines())


def test_generated_code_that_raises():
    program = mlp_program()
    program.source = program.source.replace(
        "return x + ", "assert x.shape[0] != 2, 'two are too many'\n        return x + "
    )
    found = program.verify()
    assert [case.ok for case in found.cases] == [False, True, True, False]
    assert found.cases[0].error == "AssertionError: two are too many"
    assert found.culprit is not None
    assert found.culprit.path == "blocks.0"
    assert found.culprit.mlx_line == line_with(program, "two are too many")


def test_generated_code_that_does_not_load():
    program = mlp_program()
    program.source = program.source.replace("super().__init__()", "nonsense()")
    found = program.verify()
    assert not found.ok
    assert "NameError" in found.cases[0].error
    assert found.culprit is None


def test_a_pass_that_changes_the_meaning(monkeypatch):
    def tanh_for_relu(captured):
        for node in captured.graph.nodes:
            if node.target is aten.relu.default:
                node.target = aten.tanh.default

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    monkeypatch.setattr(passes, "PIPELINE", (*passes.PIPELINE, tanh_for_relu))
    found = torch2mlx.compile(model, (torch.randn(2, 3),)).verify()
    assert found.culprit is not None
    assert found.culprit.why == operators.IN_PASSES


def test_a_model_that_knows_that_it_is_traced():
    class Aware(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if torch.compiler.is_compiling() else 2 * x)

    model = nn.Sequential(nn.ReLU(), Aware(3, 4)).eval()
    found = torch2mlx.compile(model, (torch.randn(2, 3),)).verify()
    assert found.culprit is not None
    assert found.culprit.path == "1"
    assert found.culprit.why == operators.IN_CAPTURE


def test_a_search_that_fails_leaves_the_cases(monkeypatch):
    def broken(*args):
        raise RuntimeError("lost")

    monkeypatch.setattr(driver, "find_culprit", broken)
    program = mlp_program()
    program.source = program.source.replace(
        "return self.head(x)", "return self.head(x) + 1"
    )
    found = program.verify()
    assert [case.ok for case in found.cases] == [False, False, False, False]
    assert found.culprit is None
    assert "the search for the culprit fails: RuntimeError: lost" in found.notes
