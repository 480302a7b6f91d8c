"""An example batch of one: when it becomes free, and when it stays one."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from tests.aten import as_module, evaluate
from torch2mlx.capture import Captured, capture


def captured_with(model: Any, *args: torch.Tensor) -> Captured:
    """The capture of a module or function."""
    return capture(as_module(model), args)


def batch_of(captured: Captured) -> Any:
    """The size of the first axis of the first input: 1, or a symbol."""
    inputs = {item.name for item in captured.inputs}
    first = next(n for n in captured.graph.nodes if n.name in inputs)
    return captured.expr(first.meta["val"].shape[0])


class Noise(nn.Module):
    """Random in evaluation too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


class Counts(nn.Module):
    """Its forward writes to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x * 2


ALIKE = [
    nn.Linear(4, 3),
    nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)),
    lambda x: x[0],
    lambda x: x.flatten(0, 1),
    lambda x: {"rows": x.mean(-1), "transposed": x.transpose(0, 1)},
    lambda x: (x * 1e30) ** 2,
    lambda x: x.half() @ x.half().transpose(-1, -2),
    lambda x: x.argmax(-1),
    Noise(),
]


@pytest.mark.parametrize("model", ALIKE)
def test_free(model: Any) -> None:
    x = (
        torch.randn(1, 3, 8, 4)
        if isinstance(model, nn.Sequential)
        else torch.randn(1, 5, 4)
    )
    captured = captured_with(model, x)
    assert batch_of(captured).is_Symbol
    assert captured.notes == []
    if not isinstance(model, Noise):
        wide = torch.cat([x, torch.randn(2, *x.shape[1:])])
        with torch.no_grad():
            expected = as_module(model)(wide)
        expected = list(expected.values()) if isinstance(expected, dict) else [expected]
        for want, have in zip(expected, evaluate(captured, wide), strict=True):
            torch.testing.assert_close(have, want)


def branches(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.shape[0] == 1 else x


def refuses(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] != 1:
        raise ValueError("one at a time")
    return x


OTHERWISE = [
    (lambda x: x.squeeze(0), "output 0 has the shape [2, 5, 4] instead of [5, 4]"),
    (lambda x: x.squeeze() * 2, "output 0 has the shape [2, 5, 4] instead of [5, 4]"),
    (lambda x: (x, x.sum()), "output 1 has other values in its first row"),
    (branches, "output 0 has other values in its first row"),
    (refuses, "the model fails (ValueError: one at a time)"),
    (lambda x: list(x), "the model returns another structure"),
    (lambda x: x.transpose(0, 1).reshape(5, -1).reshape(-1, 4), "output 0 has other"),
]


@pytest.mark.parametrize(("model", "why"), OTHERWISE)
def test_fixed(model: Any, why: str) -> None:
    x = torch.randn(1, 5, 4)
    captured = captured_with(model, x)
    assert batch_of(captured) == 1
    note, *_ = captured.notes
    assert note.startswith(f"the batch size is fixed at 1: with 2, {why}")
    expected = model(x)
    expected = list(expected) if isinstance(expected, list | tuple) else [expected]
    for want, have in zip(expected, evaluate(captured, x), strict=True):
        torch.testing.assert_close(have, want)


def test_weights_without_values() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(4, 3).eval(), torch.empty(1, 4)
    assert batch_of(captured_with(model, x)).is_Symbol
    captured = captured_with(lambda x: x.squeeze(0), x)
    assert batch_of(captured) == 1


def test_nothing_is_left_changed(capfd: pytest.CaptureFixture[str]) -> None:
    class Talks(Counts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("called")
            return super().forward(x) + torch.rand(())

    model, x = Talks(), torch.randn(1, 4)
    before, state = x.clone(), torch.random.get_rng_state()
    python = random.getstate()
    capture(model, (x,))
    assert model.training
    assert model.calls == 0
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert random.getstate() == python
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert capfd.readouterr() == ("", "")
