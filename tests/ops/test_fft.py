"""Discrete Fourier transforms against PyTorch, with every norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    ],
)
def test_options(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)
