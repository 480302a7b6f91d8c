"""Small models for the portability report: one that compiles, one that is refused, one that is not captured."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class GatedMLP(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Compiles(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(GatedMLP() for _ in range(3))
        self.last = GatedMLP(16)
        self.rest = nn.Identity()

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        for block in self.blocks:
            x = block(x)
        return self.rest(self.last(torch.cat([x, x], -1)))


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.FractionalMaxPool2d(3, output_size=4)

    def forward(self, x):
        return self.pool(self.conv(x))  # a < b & "</code><script>alert(1)</script>"


class Draw(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        counts = torch.poisson(x.abs() * self.scale) + torch.poisson(x.abs())
        return F.scaled_dot_product_attention(counts, x, x, dropout_p=0.5)


class Refused(nn.Module):
    """Three unsupported operators, one of them twice in a line, one for an argument."""

    def __init__(self):
        super().__init__()
        self.stem = Pool()
        self.draw = Draw()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.draw(x))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        y = self.fc(x)
        if y.sum() > 0:
            y = y * 2
        return y


class Failing(nn.Module):
    """A branch on a value below blocks that are fine, and an operator that is refused."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(GatedMLP() for _ in range(3))
        self.gate = Gate()
        self.after = nn.Linear(8, 8)
        self.draw = Draw()
        self.spare = nn.Linear(8, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.draw(self.after(self.gate(x))[:, None])


class Hostile(nn.Module):
    """Its names are markup, and so is its line of code."""

    NAME = "<img src=x onerror=alert(1)>|`&\"'"

    def __init__(self):
        super().__init__()
        self.add_module(self.NAME, Pool())

    def forward(self, x):
        return getattr(self, self.NAME)(x)


class Weighted(nn.Module):
    """Reads a parameter itself, and leaves another one out."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.spare = nn.Parameter(torch.ones(3, 5))

    def forward(self, x):
        return torch.poisson(self.scale * x)
