"""What an analysis finds, held against what the compile does."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import torch2mlx
from tests.analysis import models
from torch2mlx import Analysis, InputError, UnsupportedError, analyze
from torch2mlx.analysis.findings import NOT_CAPTURED, Verdict

REFUSED = [
    ("aten.fractional_max_pool2d.default", "stem.pool (FractionalMaxPool2d)", 1),
    ("aten.poisson.default", "draw (Draw)", 2),
    ("aten.scaled_dot_product_attention.default", "draw (Draw)", 1),
]


def by_path(analysis: Analysis) -> dict:
    return {row.path: row for row in analysis.modules}


def line_of(text: str) -> str:
    """`file:line: code` of the line of the models that has `text` in it."""
    file = inspect.getsourcefile(models)
    lines = inspect.getsource(models).splitlines()
    found = next(i for i, line in enumerate(lines) if text in line)
    return f"{file}:{found + 1}: {lines[found].strip()}"


def test_what_compiles(compiles: Analysis) -> None:
    assert compiles.status == "compiles" and compiles.ok
    assert compiles.coverage == 1
    assert not compiles.refused and not compiles.failures and not compiles.blocked
    assert compiles.by_calls.amounts == {Verdict.MAPS: 19, Verdict.HELPER: 4}
    assert compiles.inputs == "x: float32 [2, 3, 64, 64], as conv (Conv2d) takes it"


def test_all_maps_means_that_the_compile_gives_this_file(compiles: Analysis) -> None:
    program = torch2mlx.compile(models.Compiles(), (torch.zeros(2, 3, 64, 64),))
    assert compiles.translation is not None
    # The title alone is the user's
    assert compiles.translation.source == program.source
    assert compiles.translation.stubs == ()


def test_refused_means_that_the_rest_compiles_with_stubs(refused: Analysis) -> None:
    example = (torch.zeros(2, 3, 64, 64),)
    with pytest.raises(UnsupportedError) as caught:
        torch2mlx.compile(models.Refused(), example)
    entries = caught.value.entries
    assert [(e.op, e.module, e.count) for e in entries] == REFUSED
    assert [(e.op, e.module, e.count) for e in refused.refused] == REFUSED
    assert [e.source_line for e in refused.refused] == [e.source_line for e in entries]
    program = torch2mlx.compile(models.Refused(), example, stubs=True)
    assert refused.translation is not None
    assert refused.translation.source == program.source
    assert list(refused.translation.stubs) == program.report.stubs
    assert refused.status == "compiles with stubs" and not refused.ok
    assert refused.coverage == pytest.approx(8 / 12)
    assert refused.meaning.startswith("8 of 12 operator calls map.")


def test_lines_reasons_and_alternatives(refused: Analysis) -> None:
    pool, poisson, attention = refused.refused
    assert pool.source_line == line_of("return self.pool(")
    assert poisson.source_line == line_of("counts = ")
    assert "no entry in the op table" in poisson.hint
    assert attention.hint.startswith("argument `dropout_p`=0.5 is not mapped")
    assert pool.alternative == "nn.AdaptiveMaxPool2d, or nn.MaxPool2d"
    assert attention.alternative == "leave `dropout_p` at its default"


def test_modules_have_the_worst_verdict_of_what_is_in_them(
    refused: Analysis, compiles: Analysis
) -> None:
    rows = by_path(refused)
    verdicts = {path: row.verdict for path, row in rows.items()}
    assert verdicts == {
        "": Verdict.REFUSED,
        "stem": Verdict.REFUSED,
        "stem.conv": Verdict.MAPS,
        "stem.pool": Verdict.REFUSED,
        "draw": Verdict.REFUSED,
        "head": Verdict.MAPS,
    }
    assert rows["stem.conv"].becomes == "nn.Conv2d" and rows["stem"].becomes == ""
    assert rows["stem"].source == line_of("class Pool").partition(": ")[0]
    rows = by_path(compiles)
    assert rows["blocks.0"].verdict is Verdict.HELPER
    assert rows["rest"].verdict is None


def test_parameters_and_flops_of_modules(compiles: Analysis) -> None:
    rows = by_path(compiles)
    for path, module in models.Compiles().named_modules():
        assert rows[path].parameters == sum(p.numel() for p in module.parameters())
    # 2 * outputs * inputs for each of the batch of 2
    assert rows["blocks.0.gate"].flops == 2 * 2 * 8 * 16
    assert rows["conv"].flops == 2 * 2 * 64 * 64 * 8 * 3 * 9
    assert rows["blocks"].flops == 3 * 3 * 512
    assert rows[""].flops == compiles.by_flops.total
    assert compiles.by_parameters.total == rows[""].parameters


def test_what_export_refuses_is_looked_at_in_parts(failing: Analysis) -> None:
    (failure,) = failing.failures
    assert (failure.module, failure.cls) == ("gate", "Gate")
    assert failure.cause == "a branch depends on the values of a tensor"
    assert failure.source_line == line_of("if y.sum()")
    assert "torch.where" in failure.rewrite
    assert failing.status == "not captured" and failing.translation is None
    verdicts = {path: row.verdict for path, row in by_path(failing).items()}
    assert verdicts["blocks"] == verdicts["blocks.2"] == Verdict.HELPER
    assert verdicts["gate"] is Verdict.UNKNOWN
    assert verdicts["gate.fc"] == verdicts["after"] == Verdict.MAPS
    assert verdicts["draw"] is Verdict.REFUSED
    assert verdicts["spare"] is Verdict.MAPS  # never called: its inputs are inferred
    unknown = [call.module for call in failing.calls if call.op == NOT_CAPTURED]
    assert unknown == ["", "gate"]
    assert failing.coverage < 1
    assert failing.by_parameters.total == failing.by_parameters.amounts[Verdict.MAPS]


def test_the_figures_of_equal_parts_are_those_of_each(failing: Analysis) -> None:
    rows = by_path(failing)
    for i in range(3):
        assert rows[f"blocks.{i}"].flops == 3 * 2 * 2 * 8 * 16
        assert rows[f"blocks.{i}"].parameters == 424
    keys = {key for call in failing.calls for key in call.parameters}
    assert keys == dict(models.Failing().named_parameters()).keys()


@pytest.mark.parametrize("cls", [models.Refused, models.Failing])
def test_on_the_meta_device(cls: type[nn.Module], request) -> None:
    expected: Analysis = request.getfixturevalue(cls.__name__.lower())
    with torch.device("meta"):
        found = analyze(cls())
    assert found.refused == expected.refused
    assert found.failures == expected.failures
    assert found.by_calls == expected.by_calls
    assert found.by_parameters == expected.by_parameters


def test_a_parameter_of_a_module_that_is_not_captured_is_not_known() -> None:
    class Scaled(models.Gate):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    found = analyze(Scaled())
    assert found.by_parameters.amounts == {Verdict.MAPS: 72, Verdict.UNKNOWN: 3}
    assert "the model itself computes outside" in found.meaning


def test_a_model_without_a_file_is_blocked() -> None:
    class Keyed(nn.Module):
        def forward(self, x):
            return {(1, 2): x.abs()}

    found = analyze(Keyed(), (torch.ones(2),))
    assert found.status == "blocked" and found.coverage == 1 and not found.ok
    assert found.blocked and found.blocked in found.meaning


def test_what_has_no_stub_is_blocked() -> None:
    class Quantized(nn.Module):
        def forward(self, x):
            return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8).dequantize()

    found = analyze(Quantized(), (torch.ones(2),))
    assert found.status == "blocked" and found.coverage == 0
    assert [e.op for e in found.refused] == [
        "aten.quantize_per_tensor.default",
        "aten.dequantize.self",
    ]
    assert all("--quantize" in e.alternative for e in found.refused)


def test_an_exported_program() -> None:
    program = torch.export.export(models.Refused(), (torch.zeros(2, 3, 16, 16),))
    found = analyze(program.module(), (torch.zeros(2, 3, 16, 16),), program=program)
    assert [(e.op, e.module, e.count) for e in found.refused] == REFUSED


def test_the_model_is_left_as_it_was() -> None:
    for model in (models.Compiles(), models.Failing()):
        model.train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        analyze(model)
        assert all(module.training for module in model.modules())
        assert not any(
            module._forward_pre_hooks or module._forward_hooks
            for module in model.modules()
        )
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_inputs_that_do_not_fit_or_cannot_be_inferred() -> None:
    with pytest.raises(InputError, match="do not fit"):
        analyze(models.Compiles(), (1, 2, 3))
    with pytest.raises(InputError, match="there is no pass"):
        analyze(models.GatedMLP(), (torch.ones(2, 8),), disable=["nothing"])
    with pytest.raises(InputError, match="no input or output 'y'"):
        analyze(models.GatedMLP(), (torch.ones(2, 8),), io_layout={"y": "torch"})

    class Pair(nn.Module):
        def forward(self, x, y):
            return x @ y

    with pytest.raises(InputError, match="cannot infer the inputs of Pair"):
        analyze(Pair())
