"""`stubs=True`: what nothing maps becomes a function to fill in."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

import torch2mlx
from torch2mlx.cli import main


@torch.library.custom_op("stubs_test::scale", mutates_args=())
def scale(
    x: torch.Tensor, weight: torch.Tensor, times: int, by: float = 1.0
) -> torch.Tensor:
    return x * by * times + weight.sum()


@scale.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, times: int, by: float = 1.0):
    return torch.empty_like(x)


@torch.library.custom_op("stubs_test::halves", mutates_args=())
def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x / 2, x.argmax(-1)


@halves.register_fake
def _(x: torch.Tensor):
    return torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.int64)


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.ops.stubs_test.scale(self.fc(x), self.fc.weight, 2, by=0.5)
        half, index = torch.ops.stubs_test.halves(x)  # a """hostile\" comment
        return half + index[:, None]


@pytest.fixture(scope="module")
def program() -> torch2mlx.Program:
    torch.manual_seed(0)
    return torch2mlx.compile(Scaled(), (torch.randn(2, 3),), stubs=True)


def test_without_stubs_it_is_an_error() -> None:
    with pytest.raises(torch2mlx.UnsupportedError, match=r"stubs_test\.scale"):
        torch2mlx.compile(Scaled(), (torch.randn(2, 3),))


def test_a_stub_says_what_it_stands_for(program: torch2mlx.Program) -> None:
    assert program.report.stubs == ["stub_scale", "stub_halves"]
    for text in (
        "(x: mx.array, weight: mx.array, times: int, by: float = 1.0) -> mx.array:",
        "stubs_test::scale(Tensor x, Tensor weight, SymInt times, float by=1.)",
        "Called at test_stubs.py:",
        "x float32 [2, 3], weight float32 [3, 3]",
        "def stub_halves(x: mx.array) -> tuple[mx.array, mx.array]:",
        "self.fc.weight, 2, 0.5)",
    ):
        assert text in program.source


def test_a_stub_raises_until_it_is_filled_in(program: torch2mlx.Program) -> None:
    with pytest.raises(NotImplementedError, match="stub_scale"):
        program.load()(mx.ones((2, 3)))
    with pytest.raises(torch2mlx.InputError, match="stub_scale, stub_halves"):
        program.verify()


def test_filled_in_it_computes(program: torch2mlx.Program, tmp_path: Path) -> None:
    program.save(tmp_path)
    source = (tmp_path / "model_mlx.py").read_text()
    for name, code in (
        ("scale", "x * by * times + weight.sum()"),
        ("halves", "(x / 2, mx.argmax(x, axis=-1))"),
    ):
        raised = f'raise NotImplementedError("stub_{name} is to be filled in")'
        assert raised in source
        source = source.replace(raised, f"return {code}")
    namespace: dict[str, object] = {"__file__": str(tmp_path / "model_mlx.py")}
    exec(compile(source, "model_mlx.py", "exec"), namespace)
    model = namespace["load_model"]()  # type: ignore[operator]
    x = torch.randn(5, 3)
    with torch.no_grad():
        expected = program.model(x).numpy()
    np.testing.assert_allclose(
        np.array(model(mx.array(x.numpy()))), expected, rtol=1e-5, atol=1e-6
    )


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    argv = [f"{__file__}:Scaled", "--input", "2,3", "-o", str(out)]
    assert main(argv) == 2
    assert not out.exists()
    capsys.readouterr()
    assert main([*argv, "--stubs"]) == 0
    printed = capsys.readouterr().out
    assert "stub_scale, stub_halves" in printed
    assert "def stub_halves(" in (out / "model_mlx.py").read_text()


def test_a_dtype_that_mlx_lacks_has_no_stub() -> None:
    class Quantized(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8).dequantize()

    with pytest.raises(torch2mlx.UnsupportedError) as caught:
        torch2mlx.compile(Quantized(), (torch.ones(2, 3),), stubs=True)
    # What takes its result has one
    ops = [entry.op for entry in caught.value.entries]
    assert ops == ["aten.quantize_per_tensor.default"]
