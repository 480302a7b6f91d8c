"""Whole verifications of models that are right."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import torch2mlx
from tests.verify.models import (
    MLP,
    ConvNet,
    Counted,
    Positions,
    assert_unchanged,
    bert,
    build,
    fingerprint,
    plant_gelu,
)
from torch2mlx.errors import InputError
from torch2mlx.verify.driver import PERTURBED


def names(verification) -> list[str]:
    return [case.name for case in verification.cases]


def test_mlp():
    model = build(MLP).train()
    program = torch2mlx.compile(model, (torch.randn(2, 8),))
    before = fingerprint(model)
    found = program.verify()
    assert found.ok
    assert found.culprit is None
    assert names(found) == ["example inputs", "batch size 3", "batch size 1", PERTURBED]
    assert [output.shape for case in found.cases for output in case.outputs] == [
        (2, 3),
        (3, 3),
        (1, 3),
        (2, 3),
    ]
    assert_unchanged(model, before)


def test_conv_net_at_other_image_sizes():
    model = build(ConvNet)
    program = torch2mlx.compile(model, (torch.randn(2, 3, 12, 12),))
    before = fingerprint(model)
    found = program.verify()
    assert found.ok
    assert names(found) == [
        "example inputs",
        "batch size 3",
        "batch size 1",
        "sizes x [2, 3, 13, 14]",
        PERTURBED,
    ]
    assert_unchanged(model, before)


def test_bert():
    model, inputs = bert()
    program = torch2mlx.compile(model, (), inputs)
    before = fingerprint(model)
    found = program.verify()
    assert found.ok
    assert names(found) == [
        "example inputs",
        "batch size 3",
        "batch size 1",
        "sizes input_ids [2, 8], attention_mask [2, 8]",
        "padded attention_mask",
        PERTURBED,
    ]
    labels = [output.label for output in found.cases[0].outputs]
    assert labels == ["last_hidden_state", "pooler_output"]
    assert_unchanged(model, before)


def test_sizes_within_a_table():
    program = torch2mlx.compile(build(Positions), (torch.randn(2, 8, 4),))
    found = program.verify()
    assert found.ok
    sizes = "sizes x [2, 7, 4]"
    assert names(found) == ["example inputs", "batch size 3", "batch size 1", sizes]
    assert not found.notes


def test_sizes_that_pytorch_refuses_are_noted():
    program = torch2mlx.compile(build(Counted), (torch.randn(2, 8, 4),))
    found = program.verify()
    assert found.ok
    assert names(found) == ["example inputs", "batch size 3", "batch size 1"]
    (note,) = found.notes
    assert note.startswith(
        "not compared, PyTorch itself fails: sizes x [2, 9, 4]: IndexError"
    )


def test_a_constant_output_is_compared_with_noise(monkeypatch):
    model = build(MLP, True)
    plant_gelu(monkeypatch)
    program = torch2mlx.compile(model, (torch.randn(2, 8),))
    before = fingerprint(model)
    found = program.verify()
    assert [case.ok for case in found.cases] == [True, True, True, False]
    assert (
        f"output is constant on the example inputs, but not in: {PERTURBED}"
        in found.notes
    )
    assert found.culprit is not None
    assert found.culprit.path == "blocks.0"
    assert_unchanged(model, before)


def test_an_output_that_is_always_constant_is_noted():
    class Zeros(nn.Module):
        def forward(self, x):
            return {"zero": x * 0, "double": x * 2}

    found = torch2mlx.compile(Zeros(), (torch.randn(2, 3),)).verify()
    assert found.ok
    assert found.notes == ["zero is constant in every case: agreement proves little"]


def test_nested_inputs_and_outputs():
    class Nested(nn.Module):
        def forward(self, parts, named):
            a, (b, c) = parts
            return {"sum": a + b, "rest": [c * 2, (named["k"]["x"] > 0, a.argmax(-1))]}

    x = [torch.randn(2, 3) for _ in range(4)]
    inputs = ([x[0], (x[1], x[2])], {"k": {"x": x[3]}})
    found = torch2mlx.compile(Nested(), inputs).verify()
    assert found.ok
    labels = [output.label for output in found.cases[0].outputs]
    assert labels == ["sum", "rest[0]", "rest[1][0]", "rest[1][1]"]


def test_random_outputs_are_compared_by_shape_and_dtype():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x), x * 2

    found = torch2mlx.compile(Noisy(), (torch.randn(2, 3),)).verify()
    assert found.ok
    assert found.notes == ["[0] is random in PyTorch: its values are not compared"]


def test_a_fixed_size_gets_other_values():
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),), dynamic=False)
    assert names(program.verify()) == [
        "example inputs",
        "random inputs",
        "other random inputs",
        PERTURBED,
    ]


def test_half_precision_has_a_wider_tolerance():
    program = torch2mlx.compile(build(MLP).bfloat16(), (torch.randn(2, 8).bfloat16(),))
    found = program.verify()
    assert found.ok
    eps = torch.finfo(torch.bfloat16).eps
    for output in found.cases[0].outputs:
        assert output.allowed == pytest.approx(eps + 8 * eps * output.max_value)


def test_the_model_is_restored_when_it_fails():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.broken = False

        def forward(self, x):
            if self.broken:
                raise ValueError("no such luck")
            return self.linear(x)

    model = build(Fragile).train()
    program = torch2mlx.compile(model, (torch.randn(2, 3),))
    model.broken = True
    before = fingerprint(model)
    with pytest.raises(InputError, match="example inputs: ValueError: no such luck"):
        program.verify()
    assert_unchanged(model, before)


def test_a_buffer_that_forward_writes_is_restored():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(3))

        def forward(self, x):
            if not torch.compiler.is_exporting():
                self.calls.add_(1)
            return x * 2

    model = Counter()
    program = torch2mlx.compile(model, (torch.randn(2, 3),))
    before = fingerprint(model)
    assert program.verify().ok
    assert_unchanged(model, before)


def test_a_model_without_values_is_refused():
    with torch.device("meta"):
        model = MLP().eval()
    program = torch2mlx.compile(model, (torch.randn(2, 8, device="meta"),))
    with pytest.raises(InputError, match="meta device"):
        program.verify()


def test_to_dict_is_json():
    program = torch2mlx.compile(build(MLP), (torch.randn(2, 8),))
    program.source = program.source.replace("return self.head(x)", "return [x]")
    data = json.loads(json.dumps(program.verify().to_dict(), allow_nan=False))
    assert data["ok"] is False
    assert data["cases"][0]["ok"] is False
    assert data["cases"][0]["outputs"][0]["max_error"] is None
