"""Discrete Fourier transforms."""

from __future__ import annotations

from typing import Any

import mlx.core
import torch

from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers

aten = torch.ops.aten

ONE_AXIS = {
    aten.fft_fft.default: "fft",
    aten.fft_ifft.default: "ifft",
    aten.fft_rfft.default: "rfft",
    aten.fft_irfft.default: "irfft",
}
TWO_AXES = {
    aten.fft_fft2.default: "fftn",
    aten.fft_ifft2.default: "ifftn",
    aten.fft_rfft2.default: "rfftn",
    aten.fft_irfft2.default: "irfftn",
}
SEVERAL_AXES = {
    aten.fft_fftn.default: "fftn",
    aten.fft_ifftn.default: "ifftn",
    aten.fft_rfftn.default: "rfftn",
    aten.fft_irfftn.default: "irfftn",
}
# A Hermitian transform is a real one in the other direction, of the conjugate.
OPPOSITE = {
    None: "forward",
    "backward": "forward",
    "forward": "backward",
    "ortho": "ortho",
}


def one_axis(name: str) -> Any:
    """The lowering to a transform along one axis."""

    def lowering(x: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
        function = getattr(mx.fft, name)
        return (
            function(x, n, dim, **_norm(norm))
            if n or dim != -1 or norm
            else function(x)
        )

    return lowering


def several_axes(name: str) -> Any:
    """The lowering to a transform along several axes; by default all, or the last of `s`."""

    def lowering(
        x: Any, s: Any = None, dim: Any = None, norm: str | None = None
    ) -> Any:
        if dim is None:
            dim = tuple(range(-x.ndim if s is None else -len(s), 0))
        return getattr(mx.fft, name)(x, s, tuple(dim), **_norm(norm))

    return lowering


def two_axes(name: str) -> Any:
    """The lowering to a transform along two axes."""

    def lowering(
        x: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None
    ) -> Any:
        return getattr(mx.fft, name)(x, s, tuple(dim), **_norm(norm))

    return lowering


for _table, _make in (
    (ONE_AXIS, one_axis),
    (TWO_AXES, two_axes),
    (SEVERAL_AXES, several_axes),
):
    for _overload, _name in _table.items():
        lowers(_overload)(_make(_name))


@lowers(aten.fft_hfft.default)
def hfft(x: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    """The real transform of a Hermitian signal."""
    return mx.fft.irfft(mx.conjugate(x), n, dim, norm=OPPOSITE[norm])


@lowers(aten.fft_ihfft.default)
def ihfft(x: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `hfft`."""
    return mx.conjugate(mx.fft.rfft(x, n, dim, norm=OPPOSITE[norm]))


@lowers(aten.fft_hfftn.default, aten.fft_hfft2.default)
def hfftn(x: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The real transform of a signal that is Hermitian along several axes."""
    axes = _axes(x, s, dim)
    return mx.fft.irfftn(mx.conjugate(x), s, axes, norm=OPPOSITE[norm])


@lowers(aten.fft_ihfftn.default, aten.fft_ihfft2.default)
def ihfftn(x: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `hfftn`."""
    axes = _axes(x, s, dim)
    return mx.conjugate(mx.fft.rfftn(x, s, axes, norm=OPPOSITE[norm]))


@lowers(aten.fft_fftshift.default)
def fftshift(x: Any, dim: Any = None) -> Any:
    """The zero frequency moved to the middle."""
    return mx.fft.fftshift(x) if dim is None else mx.fft.fftshift(x, axes=tuple(dim))


@lowers(aten.fft_ifftshift.default)
def ifftshift(x: Any, dim: Any = None) -> Any:
    """The zero frequency moved to the front."""
    return mx.fft.ifftshift(x) if dim is None else mx.fft.ifftshift(x, axes=tuple(dim))


@lowers(aten.stft.default)
def stft(
    x: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Any:
    """Fourier transforms of overlapping frames of [..., T]: [..., frequencies, frames]."""
    if onesided is None:
        onesided = not (_is_complex(x) or _is_complex(window))
    window = _window(window, win_length, n_fft)
    options = _options(normalized=(normalized, False), onesided=(onesided, True))
    y = helpers.stft(x, n_fft, hop_length or n_fft // 4, window, **options)
    return y if return_complex else mx.stack([mx.real(y), mx.imag(y)], axis=-1)


@lowers(aten.istft.default)
def istft(
    x: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """The inverse of `stft`: [..., frequencies, frames] -> [..., T]."""
    if onesided is None:
        onesided = x.shape[-2] != n_fft
    if not (onesided or return_complex):  # PyTorch reads only what a real signal needs
        x, onesided = x[..., : n_fft // 2 + 1, :], True
    return helpers.istft(
        x,
        n_fft,
        hop_length or n_fft // 4,
        _window(window, win_length, n_fft),
        **_options(
            centred=(center, True),
            normalized=(normalized, False),
            onesided=(onesided, True),
            length=(length, None),
        ),
    )


def _window(window: Any, length: int | None, n_fft: int) -> Any:
    """The window; without one it is ones, and may be shorter than a frame."""
    if window is None and length not in (None, n_fft):
        return mx.ones((length,))
    return window


def _is_complex(x: Any) -> bool:
    return x is not None and x.dtype == mlx.core.complex64


def _options(**options: tuple[Any, Any]) -> dict[str, Any]:
    """Those keyword arguments whose value is not the default, from pairs of the two."""
    return {
        name: value for name, (value, default) in options.items() if value != default
    }


def _axes(x: Any, s: Any, dim: Any) -> tuple[int, ...]:
    if dim is not None:
        return tuple(dim)
    return tuple(range(-x.ndim if s is None else -len(s), 0))


def _norm(norm: str | None) -> dict[str, str]:
    return {} if norm in (None, "backward") else {"norm": norm}
