"""Whole models: how many transposes are left, and the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.layout.running import assigned
from torch2mlx.passes import run

IMAGE = (0, 2, 3, 1)


def _random(model: nn.Module) -> nn.Module:
    """`model` with parameters that make its outputs differ from zero and from each other."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("alexnet", 127),
        ("mobilenet_v2", 32),
        ("densenet121", 32),
        ("convnext_tiny", 32),
        ("squeezenet1_0", 64),
    ],
)
def test_no_transpose(torchvision_models: Any, name: str, size: int) -> None:
    model = _random(getattr(torchvision_models, name)())
    result = assigned(
        model,
        (torch.randn(2, 3, size, size),),
        passes=run,
        dynamic=False,
        tolerance=1e-4,
    )
    assert result.transposes == 0
    assert result.inputs == [IMAGE]
    assert result.outputs == [None]


def test_global_pool_is_a_mean_over_two_axes(torchvision_models: Any) -> None:
    result = assigned(
        torchvision_models.resnet18(), (torch.randn(2, 3, 64, 64),), passes=run
    )
    (mean,) = (
        n for n in result.graph.nodes if getattr(n.target, "__name__", "") == "mean"
    )
    assert dict(mean.kwargs) == {"axis": (1, 2)}
    assert result.calls()[-2:] == ["mean", "Linear"]


def test_vision_transformer(torchvision_models: Any) -> None:
    model = torchvision_models.VisionTransformer(224, 32, 2, 3, 24, 48, num_classes=7)
    result = assigned(_random(model), (torch.randn(2, 3, 224, 224),), passes=run)
    assert not result.reported
    assert result.transposes == 2 * 4  # q, k, v and the heads' outputs
    assert result.calls()[1:3] == ["Conv2d", "flatten"]


def test_swin(torchvision_models: Any) -> None:
    model = torchvision_models.SwinTransformer(
        [4, 4], 12, [1, 1], [2, 4], [3, 3], num_classes=5
    )
    result = assigned(
        _random(model), (torch.randn(2, 3, 24, 24),), passes=run, dynamic=False
    )
    assert not result.reported
    assert result.inputs == [IMAGE]


def test_images_pinned_to_the_order_of_pytorch(torchvision_models: Any) -> None:
    model = torchvision_models.resnet18()
    result = assigned(
        model, (torch.randn(2, 3, 64, 64),), passes=run, io_layout="torch"
    )
    assert result.inputs == [None]
    assert result.transposes == 1
    (transpose,) = result.reported
    assert transpose.why == "aten.conv2d.default is channels-last in MLX"
    assert transpose.module == "conv1"


class UNet(nn.Module):
    """An image to an image of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.inner = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(3, 12)
        )
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        y = self.up(self.inner(skip))
        return self.out(torch.cat([skip, y], 1))


def test_unet() -> None:
    args = (torch.randn(2, 3, 8, 12),)
    result = assigned(_random(UNet()), args, (torch.randn(3, 3, 8, 12),))
    assert result.transposes == 0
    assert (result.inputs, result.outputs) == ([IMAGE], [IMAGE])
    pinned = assigned(_random(UNet()), args, io_layout="torch")
    assert pinned.transposes == len(pinned.reported) == 2
    assert [t.why for t in pinned.reported] == [
        "aten.conv2d.default is channels-last in MLX",
        "the model's output has PyTorch's axis order",
    ]


class Waves(nn.Module):
    """A signal [B, C, L] to tokens [B, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv1d(2, 6, 3, stride=2),
            nn.BatchNorm1d(6),
            nn.GELU(),
            nn.Conv1d(6, 6, 3, groups=2),
            nn.MaxPool1d(2),
        )
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 4)
        self.last = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convs(x)
        y = self.linear(self.norm(y.transpose(1, 2)))
        return self.last(y.transpose(1, 2)).transpose(1, 2)


def test_signal() -> None:
    result = assigned(
        _random(Waves()), (torch.randn(2, 2, 33),), (torch.randn(3, 2, 33),)
    )
    assert result.transposes == 0
    assert (result.inputs, result.outputs) == ([(0, 2, 1)], [None])


def test_transformer_is_left_alone() -> None:
    model = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)
    result = assigned(
        model, (torch.randn(2, 5, 12),), (torch.randn(3, 7, 12),), passes=run
    )
    assert (result.inputs, result.outputs) == ([None], [None])
    assert not result.reported


class Mixer(nn.Module):
    """[B, T, D] mixed along T: the author's transposes have to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(self.norm(x).transpose(1, 2)).transpose(1, 2)


def test_tokens_mixed() -> None:
    result = assigned(Mixer(), (torch.randn(2, 5, 6),), (torch.randn(3, 5, 6),))
    assert (result.inputs, result.outputs) == ([None], [None])
    assert result.transposes == 2
    assert not result.reported


class Classifier(nn.Module):
    """Linear layers on a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 6 * 5, 7)
        )
        self.other = nn.Linear(4 * 6 * 5, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.head(y), self.other(y.flatten(1).relu())


def test_flattened_image_before_linear_layers() -> None:
    args = (torch.randn(2, 3, 8, 7),)
    result = assigned(Classifier(), args, passes=run, dynamic=False)
    assert result.transposes == 0
    (linear,) = (n for n in result.graph.nodes if n.target == "other")
    assert linear.meta["layer"].weights["weight"].steps == (
        ("reshape", (2, 4, 6, 5)),
        ("transpose", (0, 2, 3, 1)),
        ("reshape", (2, 120)),
    )


def test_flattened_image_of_varying_size() -> None:
    """Only the area of the image is fixed, so that the weights have no order that always fits."""
    args, other = (torch.randn(2, 3, 8, 7),), (torch.randn(2, 3, 7, 8),)
    result = assigned(Classifier(), args, other, passes=run)
    assert result.transposes == len(result.reported) == 1


class Shared(nn.Module):
    """A linear layer that also gets something else cannot be reordered."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(120, 7)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.linear(self.conv(x).flatten(1)), self.linear(y)


def test_shared_linear_layer() -> None:
    result = assigned(Shared(), (torch.randn(2, 3, 8, 7), torch.randn(2, 120)))
    assert result.transposes == len(result.reported) == 1


class Sizes(nn.Module):
    """Sizes of an image are read after it is stored in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return nn.functional.interpolate(y, size=(x.shape[3], x.shape[2])) * y.shape[1]


def test_sizes() -> None:
    args = (torch.randn(2, 3, 6, 5),)
    result = assigned(Sizes(), args, (torch.randn(3, 3, 4, 9),))
    assert result.transposes == 0


def test_module_arguments_survive() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    result = assigned(model, (torch.randn(2, 3, 6, 5),))
    (mean,) = (
        n for n in result.graph.nodes if getattr(n.target, "__name__", "") == "mean"
    )
    assert ("3", "input") in mean.meta["forward_args"]
    (conv,) = (n for n in result.graph.nodes if n.target == "0")
    assert ("1", "input") in conv.meta["forward_args"]
    assert conv.meta["perm"] == IMAGE


class Tied(nn.Module):
    """One parameter in two places, in one of them as an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(4, 5, 6))
        self.same = self.scale

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x) * self.scale
        return y.mean((2, 3)) + self.same.sum((1, 2)), self.same * 2


def test_parameter_in_two_places() -> None:
    result = assigned(Tied(), (torch.randn(2, 3, 5, 6),))
    (scale,) = (n for n in result.graph.nodes if n.op == "get_attr")
    assert "perm" not in scale.meta or result.outputs[1] is not None


def test_output_in_both_orders() -> None:
    conv = nn.Conv2d(3, 4, 3)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: torch.Tensor) -> Any:
            y = self.conv(x)
            return y, y.permute(0, 2, 3, 1)

    result = assigned(Both(), (torch.randn(2, 3, 6, 5),))
    (output,) = (n for n in result.graph.nodes if n.op == "output")
    assert [n.meta.get("perm") for n in output.args[0]] == result.outputs
    assert len(set(output.args[0])) == 2
