"""A folder with a small model, and a stand-in for the compiler."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import torch2mlx
from torch2mlx.ir.decision import Decision
from torch2mlx.layout import Transpose
from torch2mlx.report import Report
from torch2mlx.review.merge import Merge
from torch2mlx.weights import save_folder
from torch2mlx.writing import Extras

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Odd(Net):
    def forward(self, x):
        return torch.linalg.eig(self.fc(x))


def loud():
    print("loud")
    return Net()


def broken():
    return 1 / 0
"""


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Path, None, None]:
    """The current folder, with net.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "net.py").write_text(NET)
    yield tmp_path
    sys.modules.pop("net", None)


@dataclass
class FakeVerification:
    """A comparison that agrees, or does not."""

    ok: bool = True

    def lines(self) -> list[str]:
        if self.ok:
            return ["largest error 1e-07"]
        return ["output 0: largest error 0.5", "first differs in conv (Conv2d)"]

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok}


@dataclass
class FakeOutput:
    """What will be written."""

    bytes: int = 1000


@dataclass
class FakeProgram:
    """A compiled model without a compiler."""

    name: str = "Net"
    source: str = "# the source\n"
    report: Report = field(
        default_factory=lambda: Report(
            model="net.Net",
            ops=Counter(
                {"aten.add.Tensor": 1, "aten.add.Scalar": 2, "aten.relu.default": 1}
            ),
            layers=Counter({"Conv2d": 1, "Linear": 1}),
            parameters=250,
            trainable=242,
            bytes=1000,
            inputs=["x: float32 [B, H, W, 3]"],
            outputs=["float32 [B, 2]"],
            notes=["the batch size is fixed at 2"],
        )
    )
    ok: bool = True
    error: BaseException | None = None

    def dump(self, stage: str) -> str:
        return f"stage {stage} [1]"

    def verify(self, repro: Path | None = None) -> FakeVerification:
        return FakeVerification(self.ok)

    def merged(self, path: Path, output: FakeOutput, extras: Extras) -> Merge:
        return Merge(path, {}, {})

    options: dict[str, Any] = field(default_factory=dict)

    def output(self, **options: Any) -> FakeOutput:
        self.options = options
        return FakeOutput()

    def write(self, path, output, *, files=None, extras=None, progress=None) -> Path:
        def weights(folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(b"weights")
            if self.error is not None:
                raise self.error
            progress(600)
            progress(400)

        texts = {"model_mlx.py": self.source, "config.json": "{}", **(files or {})}
        return save_folder(path, texts, weights)


@dataclass
class FakeCompiler:
    """Stands in for `torch2mlx.compile` and remembers what it was called with."""

    program: FakeProgram = field(default_factory=FakeProgram)
    error: BaseException | None = None
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __call__(self, *args: Any, **options: Any) -> FakeProgram:
        self.calls.append((args, options))
        for stage in ("capture", "lower", "emit"):
            options["progress"](stage)
        if self.error is not None:
            raise self.error
        return self.program


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    """`torch2mlx.compile` does nothing but return a finished program."""
    fake = FakeCompiler()
    monkeypatch.setitem(vars(torch2mlx), "compile", fake)
    return fake


@pytest.fixture
def explained(compiler: FakeCompiler) -> Report:
    """A report with decisions and transposes."""
    report = compiler.program.report
    report.decisions = [
        Decision("fused", "conv", "conv and relu are one", "net.py:12: x.relu()"),
        Decision("declined", "attention", "the mask depends on data", ""),
        Decision("fused", "fc", "folded", ""),
    ]
    report.transposes = [
        Transpose(2048, f"reshape {i} mixes channels", f"net.py:{i}: x", "fc")
        for i in range(5)
    ]
    return report
