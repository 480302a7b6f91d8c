"""Each operation between two convolutions: computed channels-last, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.layout.running import assigned
from torch2mlx.passes import run

Function = Callable[[torch.Tensor], Any]

B, C, H, W = 2, 4, 6, 5  # of what the operation gets


class Between(nn.Module):
    """A convolution, `function`, and a convolution of one output channel if `function` gives an image."""

    def __init__(self, function: Function, channels: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Conv2d(3, C, 1)
        self.function = function
        self.after = nn.Conv2d(channels, 1, 1) if channels else None
        self.scale = nn.Parameter(torch.randn(C, 1, 1))
        self.rows = nn.Parameter(torch.randn(W))
        self.image = nn.Parameter(torch.randn(1, C, H, W))

    def forward(self, x: torch.Tensor) -> Any:
        y = self.before(x)
        y = (
            self.function(self, y)
            if self.function.__code__.co_argcount == 2
            else self.function(y)
        )
        return y if self.after is None else self.after(y)


# name: (function, channels of the image that it gives, or 0)
FREE: dict[str, tuple[Any, int]] = {
    "pointwise": (lambda x: F.gelu(x) * 2 + x.abs().sqrt(), C),
    "where": (lambda x: torch.where(x > 0, x, x * 0.1), C),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), C),
    "dtype": (lambda x: x.to(torch.float16).to(torch.float32), C),
    "channel weight": (lambda self, x: x * self.scale, C),
    "column weight": (lambda self, x: x + self.rows, C),
    "image weight": (lambda self, x: x + self.image, C),
    "attention over channels": (
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        C,
    ),
    "global mean": (lambda x: x.mean((2, 3)), 0),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), 0),
    "global max": (lambda x: x.amax((-2, -1), keepdim=True), C),
    "mean over channels": (lambda x: x.mean(1), 0),
    "mean over rows": (lambda x: x.mean(2), 0),
    "mean of all": (lambda x: x.mean(), 0),
    "argmax": (lambda x: x.argmax(1), 0),
    "variance": (
        lambda x: (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 1).sqrt(),
        C,
    ),
    "softmax": (lambda x: x.softmax(1), C),
    "softmax over rows": (lambda x: x.softmax(2), C),
    "log_softmax": (lambda x: x.log_softmax(1), C),
    "cumsum": (lambda x: x.cumsum(1) + x.cumsum(3), C),
    "glu": (lambda x: F.glu(x, 1), C // 2),
    "cat": (lambda x: torch.cat([x, x * 2], 1), 2 * C),
    "cat over rows": (lambda x: torch.cat([x, x * 2], 2), C),
    "stack": (lambda x: torch.stack([x, x * 2], 2).sum(2), C),
    "split": (lambda x: (lambda a, b: a * torch.sigmoid(b))(*x.split([1, 3], 1)), 3),
    "chunk": (lambda x: sum(x.chunk(2, 1)), C // 2),
    "unbind": (lambda x: torch.stack(x.unbind(1)[::-1], 1), C),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 4)), C),
    "pad channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), C + 3),
    "reflect": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), C),
    "slice": (lambda x: x[:, 1:3, ::2, 1:], 2),
    "select": (lambda x: x[:, 1], 0),
    "select a row": (lambda x: x[:, :, 1], 0),
    "select keeps an axis": (lambda x: x[:, 1][:, None], 1),
    "flip": (lambda x: x.flip(1, 3), C),
    "roll": (lambda x: x.roll((1, 2), (1, 3)), C),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), 2 * C),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 2 * C),
    "index": (lambda x: x.index_select(1, torch.tensor([3, 0, 1])), 3),
    "expand": (lambda x: x.mean((2, 3), True).expand(-1, -1, H, W) + x, C),
    "unsqueeze": (lambda x: (x.mean((2, 3))[:, :, None, None] + x), C),
    "squeeze": (lambda x: x.amax(2, keepdim=True).squeeze(2)[:, :, None], C),
    "rows and columns": (
        lambda x: x.flatten(2).softmax(-1).unflatten(2, x.shape[2:]),
        C,
    ),
    "view of rows": (lambda x: x.view(x.shape[0], C, -1).mean(-1), 0),
    "group of one": (lambda x: F.group_norm(x, 2), C),
    "dropout": (lambda x: F.dropout(x, 0.5, False), C),
}


@pytest.mark.parametrize("name", FREE)
def test_free(name: str) -> None:
    function, channels = FREE[name]
    result = assigned(
        Between(function, channels),
        (torch.randn(B, 3, H, W),),
        (torch.randn(3, 3, H, W),),
        passes=run,
    )
    assert result.transposes == 0
    assert not result.reported
    assert result.inputs == [(0, 2, 3, 1)]


# name: (function, channels, the transposes that the author wrote)
SHUFFLES: dict[str, tuple[Any, int, int]] = {
    "channel shuffle": (
        lambda x: x.view(-1, 2, 2, H, W).transpose(1, 2).reshape(-1, C, H, W),
        C,
        1,
    ),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), 1, 1),
    "channels last": (lambda x: x.permute(0, 2, 3, 1).softmax(-1), 0, 0),
    "there and back": (
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (C,)).permute(0, 3, 1, 2),
        C,
        0,
    ),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), 0, 0),
    "tokens first": (lambda x: x.flatten(2).permute(2, 0, 1), 0, 1),
    "tokens and back": (
        lambda x: F.layer_norm(x.flatten(2).transpose(1, 2), (C,))
        .transpose(1, 2)
        .view(x.shape),
        C,
        0,
    ),
    "rows exchanged": (lambda x: x.transpose(2, 3), C, 1),
}


@pytest.mark.parametrize("name", SHUFFLES)
def test_author_transposes(name: str) -> None:
    function, channels, transposes = SHUFFLES[name]
    result = assigned(
        Between(function, channels),
        (torch.randn(B, 3, H, W),),
        (torch.randn(3, 3, H, W),),
        passes=run,
    )
    assert result.transposes == transposes
    assert not result.reported


def merged(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, C * H, W).cumsum(1)


def product(x: torch.Tensor) -> torch.Tensor:
    return x @ x.transpose(2, 3)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (merged, "aten.view.default merges the channel axis with others"),
        (product, "aten.matmul.default takes its axes in PyTorch's order"),
    ],
)
def test_reported(function: Any, why: str) -> None:
    result = assigned(Between(function), (torch.randn(B, 3, H, W),), dynamic=False)
    (transpose,) = result.reported
    assert transpose.why.replace("reshape", "view") == why
    assert transpose.bytes == B * C * H * W * 4
    assert "test_rules.py" in transpose.source_line


STEPS: list[Any] = [
    lambda x: F.relu(x),
    lambda x: x.mean(1, keepdim=True) + x,
    lambda x: x.softmax(1),
    lambda x: torch.cat([x, x], 1)[:, ::2],
    lambda x: x.flatten(2).cumsum(1).view(x.shape),
    lambda x: x.permute(0, 2, 3, 1).softmax(2).permute(0, 3, 1, 2),
    lambda x: x.transpose(2, 3),
    lambda x: x.flip(1),
    lambda x: F.avg_pool2d(x, 3, 1, 1),
    lambda x: x * x.amax((2, 3), keepdim=True),
    lambda x: x.flatten(1).cumsum(1).view(x.shape),
    lambda x: x[:, 1:].roll(1, 1),
    lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)),
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=6),
    st.sampled_from(["mlx", "torch"]),
    st.integers(0, 5),
)
def test_random_chains(steps: list[Any], io_layout: str, also: int) -> None:
    def function(x: torch.Tensor) -> Any:
        values = [x]
        for step in steps:
            values.append(
                step(values[-1]) if values[-1].shape[1] > 1 else values[-1] + 1
            )
        return values[-1] * 2, values[min(also, len(steps))] + 1

    assigned(
        Between(function),
        (torch.randn(B, 3, H, W),),
        io_layout=io_layout,
        dynamic=False,
    )
