"""BatchNorm in the weights of the layer before it: fewer calls, the same numbers, for any checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torch2mlx
from tests.program import check
from torch2mlx.errors import InputError


def random(model: nn.Module) -> nn.Module:
    """`model` with statistics and weights that all differ."""
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.3, 1.3)
    return model.eval()


FOLDED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4)), (2, 3, 7)),
    "conv2d": (
        nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)),
        (2, 4, 6, 5),
    ),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4)), (2, 3, 4, 5, 6)),
    "conv_transpose": (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.BatchNorm2d(4)),
        (2, 3, 5, 6),
    ),
    "linear": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (2, 3)),
    "without affine": (
        nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, 1e-2, affine=False)),
        (2, 3, 6, 5),
    ),
    "same padding": (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)),
        (2, 3, 6, 5),
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name: str) -> None:
    model, shape = FOLDED[name]
    program = check(random(model), (torch.randn(shape),), fold_bn=True)
    assert "BatchNorm" not in program.source
    assert "rsqrt" not in program.source
    (decision,) = (d for d in program.report.decisions if d.kind == "folded")
    assert str(decision).startswith("folded 1: it is in the weights of 0")


def test_off_by_default() -> None:
    model, shape = FOLDED["conv2d"]
    program = check(random(model), (torch.randn(shape),))
    assert "nn.BatchNorm(6)" in program.source


class PreActivation(nn.Module):
    """The BatchNorm comes first, and the convolution's result has another use."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(self.norm1(x).relu())
        return self.norm2(y) + y


def test_scale_where_there_is_no_layer() -> None:
    program = check(random(PreActivation()), (torch.randn(2, 3, 6, 5),), fold_bn=True)
    assert "BatchNorm(" not in program.source.replace("class BatchNorm", "")
    assert not program.report.transposes


class Shared(nn.Module):
    """One convolution before two norms, and one norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 1)
        self.conv2 = nn.Conv2d(3, 3, 1)
        self.norm1 = nn.BatchNorm2d(3)
        self.norm2 = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm1(self.conv1(x)) + self.norm2(self.conv1(x * 2))
        return self.norm2(self.conv2(y))


def test_shared_weights_stay() -> None:
    check(random(Shared()), (torch.randn(2, 3, 6, 5),), fold_bn=True)


def test_training_statistics_stay() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), norm)
    program = check(random(model), (torch.randn(2, 3, 6, 5),), fold_bn=True)
    assert not [d for d in program.report.decisions if d.kind == "folded"]


def test_another_checkpoint(tmp_path: Path) -> None:
    model, shape = FOLDED["conv2d"]
    x = torch.randn(shape)
    program = torch2mlx.compile(random(model), (x,), fold_bn=True)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.5)
        expected = model(x)
    checkpoint = tmp_path / "other.safetensors"
    safetensors.torch.save_file(model.state_dict(), checkpoint)
    program.save(tmp_path / "out", weights=checkpoint)
    generated = program.load()
    generated.load_weights(str(tmp_path / "out" / "model.safetensors"), strict=True)
    found = np.array(generated(mx.array(x.permute(0, 2, 3, 1).contiguous().numpy())))
    np.testing.assert_allclose(
        found.transpose(0, 3, 1, 2), expected.numpy(), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(InputError, match="compile it without --fold-bn"):
        torch2mlx.to_torch(tmp_path / "out")


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)).eval()
    program = torch2mlx.compile(
        model, (torch.empty(2, 3, 6, 5, device="meta"),), fold_bn=True
    )
    assert all(e.expression for e in program.plan.entries)
