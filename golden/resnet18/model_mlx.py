"""ResNet in MLX, compiled from `torchvision.models.resnet.ResNet`.

Input
    x: float32 [B, H, W, 3], channels last (PyTorch: [B, 3, H, W])
Output
    float32 [B, 1000]
"""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm(out_channels)
        self.downsample = []
        if in_channels != out_channels:
            self.downsample = [
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm(out_channels),
            ]

    def __call__(self, x: mx.array) -> mx.array:
        out = self.conv2(nn.relu(self.bn1(self.conv1(x))))
        for layer in self.downsample:
            x = layer(x)
        return nn.relu(self.bn2(out) + x)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = [BasicBlock(64, 64) for _ in range(2)]
        self.layer2 = [BasicBlock(64, 128, stride=2), BasicBlock(128, 128)]
        self.layer3 = [BasicBlock(128, 256, stride=2), BasicBlock(256, 256)]
        self.layer4 = [BasicBlock(256, 512, stride=2), BasicBlock(512, 512)]
        self.fc = nn.Linear(512, 1000)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.maxpool(nn.relu(self.bn1(self.conv1(x))))
        for layer in self.layer1 + self.layer2 + self.layer3 + self.layer4:
            x = layer(x)
        return self.fc(mx.mean(x, axis=(1, 2)))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Weights of PyTorch as this module has them; its own are left as they are."""
        if weights["conv1.weight"].shape != (64, 3, 7, 7):
            return weights
        sanitized = {}
        for key, value in weights.items():
            if key.endswith("num_batches_tracked"):
                continue
            if value.ndim == 4 and key.endswith("weight"):
                value = value.transpose(0, 2, 3, 1)
            sanitized[key] = value
        return sanitized


def load_model(
    path: str | Path = Path(__file__).with_name("model.safetensors"),
) -> ResNet:
    """The model with its weights, in evaluation mode."""
    model = ResNet()
    weights = model.sanitize(mx.load(str(path)))
    model.load_weights(list(weights.items()), strict=True)
    model.eval()
    return model


@dataclass
class ModelArgs:
    """What `mlx_lm` makes of config.json: the model has no options."""

    @classmethod
    def from_dict(cls, config: dict) -> "ModelArgs":
        return cls()


class Model(ResNet):
    """The model as `mlx_lm.utils.load_model` constructs it."""

    def __init__(self, args: ModelArgs):
        super().__init__()
