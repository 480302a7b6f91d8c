"""Which sizes are free, what the user hears, and what he does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import nn

from tests.aten import as_module
from torch2mlx.capture import Captured, capture, export
from torch2mlx.capture.limit import TookTooLong, arithmetic_limited
from torch2mlx.errors import CaptureError


def free(captured: Captured) -> list[list[bool]]:
    """For each input, which of its axes are free."""
    inputs = {item.name for item in captured.inputs}
    return [
        [not captured.expr(size).is_Integer for size in node.meta["val"].shape]
        for node in captured.graph.nodes
        if node.name in inputs
    ]


class FixedHeight(nn.Module):
    """Takes tokens of any length, and images of a size that torch.export cannot leave free."""

    def forward(self, tokens: torch.Tensor, image: torch.Tensor) -> Any:
        if not isinstance(image.shape[-1], int):
            raise NotImplementedError("an image of any size")
        return tokens * 2, image * 2


def test_the_length_stays_free() -> None:
    args = torch.ones(2, 5, dtype=torch.long), torch.randn(2, 3, 8, 8)
    captured = capture(FixedHeight(), args)
    assert free(captured) == [[True, True], [True, False, False, False]]
    assert captured.notes == [
        "all sizes but the batch and the length are fixed: with more of them free, "
        "torch.export fails (NotImplementedError: an image of any size)"
    ]


def test_the_batch_stays_free() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x.shape[-1], int):
            raise NotImplementedError("any size")
        return x * 2

    captured = capture(as_module(function), (torch.randn(2, 3, 8, 8),))
    assert free(captured) == [[True, False, False, False]]
    (note,) = captured.notes
    assert note.startswith("all sizes but the batch are fixed: ")


def test_nothing_is_free() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x.shape[0], int):
            raise NotImplementedError("any size")
        return x * 2

    captured = capture(as_module(function), (torch.randn(2, 3),))
    assert free(captured) == [[False, False]]
    (note,) = captured.notes
    assert note.startswith("all sizes are fixed: ")


def branch(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:
        return x + 1
    return x


def number(x: torch.Tensor) -> torch.Tensor:
    return x[: int(x.sum().item())]


def with_numpy(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.sin(x.numpy()))


def fails(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 5)


@pytest.mark.parametrize(
    ("function", "cause", "code", "rewrite"),
    [
        (branch, "a branch depends on the values", "if x.sum() > 0:", "torch.where("),
        (number, "a number read from a tensor", "return x[: int(", ".item()"),
        (with_numpy, "NumPy computes", "torch.from_numpy(np", "in torch"),
        (fails, "RuntimeError: shape '[-1, 5]' is", "return x.view(-1, 5)", ""),
    ],
)
def test_errors(
    function: Callable[..., Any], cause: str, code: str, rewrite: str
) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(as_module(function), (torch.ones(3, 4),))
    first, where, *rest = str(caught.value).splitlines()
    assert first.startswith("torch.export cannot capture the model: ")
    assert cause in first
    assert where.startswith(f"    at {__file__}:")
    assert code in where
    assert len(rest) == bool(rewrite)
    assert rewrite in "".join(rest)


NOISY = """
import warnings, torch, torch2mlx
from torch2mlx.errors import CaptureError

class Branches(torch.nn.Module):
    def forward(self, x):
        print("called")
        warnings.warn("odd")
        return x + 1 if x.sum() > 0 else x

class Reads(torch.nn.Module):
    def forward(self, x):
        return x[: int(x.sum().item())]

for model, batch in (Branches(), 1), (Branches(), 2), (Reads(), 2):
    try:
        torch2mlx.compile(model, (torch.ones(batch, 4),))
    except CaptureError:
        continue
    raise AssertionError("captured")
"""


def test_failures_are_quiet() -> None:
    found = subprocess.run(
        [sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=120
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def busy() -> None:
    """Arithmetic on expressions that are new each time."""
    x = sympy.Symbol("x", integer=True, positive=True)
    for i in range(100_000):
        sympy.expand((x + i) ** 3 // (x + 2 * i))


def test_arithmetic_is_limited() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TookTooLong), arithmetic_limited(0.3):
        busy()
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_other_work_is_not_limited() -> None:
    with arithmetic_limited(0.1):
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass


def test_no_limit_beside_another_timer_or_in_another_thread() -> None:
    def handler(*_: Any) -> None:
        raise AssertionError("not in this test")

    before = signal.signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
    try:
        with arithmetic_limited(0):
            assert signal.getsignal(signal.SIGVTALRM) is handler
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    found = []

    def other() -> None:
        with arithmetic_limited(0):
            found.append(signal.getsignal(signal.SIGVTALRM))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [before]


class Windows(nn.Module):
    """Windows of the padded image, again and again: the sizes become long expressions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for window in (7, 5, 3):
            height, width = x.shape[2:]
            right, down = (-width) % window, (-height) % window
            x = nn.functional.pad(x, (0, right, 0, down))
            rows, columns = x.shape[2] // window, x.shape[3] // window
            x = x.view(*x.shape[:2], rows, window, columns, window)
            x = torch.relu(x.transpose(3, 4).reshape(*x.shape[:2], -1, window, window))
            x = x.view(*x.shape[:2], rows, columns, window, window).transpose(3, 4)
            x = x.reshape(*x.shape[:2], rows * window, columns * window)[:, :, ::2, ::2]
        return x


def test_long_arithmetic_leaves_pytorch_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(2, 2, 40, 44)
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(2))
    fresh = str(capture(other, (x,)).graph)
    monkeypatch.setattr(export, "ARITHMETIC_SECONDS", 0.5)
    captured = capture(Windows(), (x,))
    assert captured.notes == [
        "all sizes but the batch are fixed: with more of them free, "
        "the arithmetic with sizes takes too long"
    ]
    assert free(captured) == [[True, False, False, False]]
    monkeypatch.undo()
    assert str(capture(other, (x,)).graph) == fresh


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


def test_a_changed_number_is_noted_and_put_back() -> None:
    model = Counts()
    captured = capture(model, (torch.randn(2),))
    assert model.calls == 0
    (note,) = captured.notes
    assert "`calls` of the model" in note
