"""Discrete Fourier transforms against PyTorch, with every norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.lowering import run_lowered
from tests.ops.cases import case

X = torch.randn(3, 6, 8)


def real(y: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y


@pytest.mark.parametrize("norm", ["backward", "forward", "ortho"])
@pytest.mark.parametrize(
    "name", ["fft", "ifft", "rfft", "fft2", "rfft2", "fftn", "rfftn", "ihfft"]
)
def test_of_real_numbers(name: str, norm: str) -> None:
    function = getattr(torch.fft, name)
    run_lowered(lambda x: real(function(x, norm=norm)), (X,))


@pytest.mark.parametrize("norm", ["backward", "forward", "ortho"])
@pytest.mark.parametrize("name", ["irfft", "irfft2", "irfftn", "hfft"])
def test_to_real_numbers(name: str, norm: str) -> None:
    function = getattr(torch.fft, name)
    run_lowered(lambda x: function(torch.fft.rfft(x), norm=norm), (X,), dynamic=False)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("length", lambda x: real(torch.fft.fft(x, 5, 1)), X),
        case(
            "real length", lambda x: torch.fft.irfft(torch.fft.rfft(x, 10, 1), 10, 1), X
        ),
        case("sizes", lambda x: real(torch.fft.fft2(x, (4, 9), (0, 2))), X),
        case("shift", lambda x: torch.fft.ifftshift(torch.fft.fftshift(x, 1)), X),
        case(
            "stft",
            lambda x, w: real(torch.stft(x, 8, 3, 6, w, return_complex=True)),
            torch.randn(2, 40),
            torch.hann_window(6),
        ),
        case(
            "stft, no window",
            lambda x: torch.stft(
                x,
                8,
                center=False,
                normalized=True,
                window=torch.ones(8),
                return_complex=True,
            ).abs(),
            torch.randn(40),
        ),
        case(
            "stft in two parts",
            lambda x: torch.view_as_real(
                torch.stft(x, 8, onesided=False, win_length=5, return_complex=True)
            ),
            torch.randn(40),
        ),
        case(
            "stft of complex numbers",
            lambda x: real(torch.stft(torch.complex(x, -x), 8, return_complex=True)),
            torch.randn(40),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:A window was not provided")
def test_options(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"center": False, "window": torch.hamming_window(8)},
        {"hop_length": 3, "win_length": 6, "window": torch.hamming_window(6)},
        {"normalized": True, "window": torch.rand(8) + 0.5},
        {"length": 30},
        {"length": 80},
        {"onesided": False},
        {"onesided": False, "return_complex": True},
    ],
    ids=lambda options: " ".join(map(str, options)) or "defaults",
)
@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.filterwarnings("ignore:The length of signal")
def test_istft(options: dict[str, Any]) -> None:
    onesided = options.get("onesided", True)
    x = torch.randn(2, 5 if onesided else 8, 9, dtype=torch.complex64)
    run_lowered(lambda x: real(torch.istft(x, 8, **options)), (x,), dynamic=False)


def test_istft_inverts_stft() -> None:
    def function(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        y = torch.stft(x, 8, 3, window=window, return_complex=True)
        return torch.istft(y, 8, 3, window=window, length=30)

    x = torch.randn(3, 30)
    (y,) = run_lowered(function, (x, torch.hann_window(8)), dynamic=False)
    np.testing.assert_allclose(np.array(y), x.numpy(), atol=1e-5)
