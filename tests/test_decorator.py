"""`@torch2mlx.export(...)` on classes and functions, and what `torch2mlx-compile` reads of it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from torch2mlx.cli import main
from torch2mlx.errors import InputError

CODE = """
import torch
from torch import nn
import torch2mlx

@torch2mlx.export((torch.zeros(2, 3, 8, 8),), io_layout="torch", name="Small")
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)
"""


@torch2mlx.export((torch.zeros(2, 3),), {"shift": torch.zeros(2, 1)}, dynamic=False)
class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + shift


@torch2mlx.export((torch.zeros(2, 3),))
def doubled() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())


def test_an_instance_compiles(tmp_path: Path) -> None:
    model = Shifted()
    program = model.to_mlx(tmp_path / "out")  # type: ignore[attr-defined]
    assert (tmp_path / "out" / "model_mlx.py").read_text() == program.source
    x, shift = torch.randn(2, 3), torch.randn(2, 1)
    found = program.load()(mx.array(x.numpy()), mx.array(shift.numpy()))
    wanted = model(x, shift).detach().numpy()
    np.testing.assert_allclose(np.array(found), wanted, rtol=1e-5, atol=1e-6)


def test_a_function_compiles() -> None:
    program = doubled.to_mlx()  # type: ignore[attr-defined]
    assert "nn.Linear(3, 3)" in program.source
    assert isinstance(doubled(), nn.Sequential)


def test_a_subclass_has_it_too() -> None:
    class Further(Shifted):
        pass

    assert Further().to_mlx().name == "Further"  # type: ignore[attr-defined]


def test_the_command_line_reads_inputs_and_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net_with_recipe.py"
    file.write_text(CODE)
    out = tmp_path / "out"
    assert main([f"{file}:Net", "-o", str(out)]) == 0
    assert "those that @export gives Net" in capsys.readouterr().out
    source = (out / "model_mlx.py").read_text()
    assert source.startswith('"""Small in MLX')
    assert "x: float32 [B, 3, H, W]" in source
    other = tmp_path / "other"
    assert main([f"{file}:Net", "-o", str(other), "--io-layout", "mlx", "--quiet"]) == 0
    assert "x: float32 [B, H, W, 3]" in (other / "model_mlx.py").read_text()


def test_wrong_uses_are_refused() -> None:
    with pytest.raises(InputError, match="no option 'fold_batchnorm'"):
        torch2mlx.export((), fold_batchnorm=True)
    with pytest.raises(InputError, match="as a tuple"):
        torch2mlx.export(torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="int is not an nn.Module class"):
        torch2mlx.export(())(int)
    with pytest.raises(InputError, match="a module class or a function"):
        torch2mlx.export(())(3)  # type: ignore[type-var]

    class Taken(nn.Module):
        def to_mlx(self) -> None: ...

    with pytest.raises(InputError, match="Taken has a to_mlx already"):
        torch2mlx.export(())(Taken)
