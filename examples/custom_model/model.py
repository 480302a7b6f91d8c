"""A small image classifier, as somebody might write it in PyTorch."""

from __future__ import annotations

import torch
from torch import nn


class ChannelGate(nn.Module):
    """Weighs the channels by what the whole image holds (squeeze and excitation)."""

    def __init__(self, channels: int):
        super().__init__()
        self.down = nn.Linear(channels, channels // 4)
        self.up = nn.Linear(channels // 4, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(dim=(2, 3))
        gate = torch.sigmoid(self.up(torch.relu(self.down(pooled))))
        return x * gate[:, :, None, None]


class Block(nn.Module):
    """Convolution, norm and gate beside a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gate = ChannelGate(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.gate(self.norm(self.conv(x))))


class GatedNet(nn.Module):
    """Images (B, 3, H, W) of any size -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(16) for _ in range(3))
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))
