"""Short-time Fourier transforms."""

from __future__ import annotations

import mlx.core as mx


def _centred(window: mx.array | None, n_fft: int) -> mx.array:
    """A window in the middle of `n_fft` places; None for ones."""
    if window is None:
        return mx.ones((n_fft,))
    left = (n_fft - window.shape[0]) // 2
    return mx.pad(window, (left, n_fft - window.shape[0] - left))


def stft(
    x: mx.array,
    n_fft: int,
    hop: int,
    window: mx.array | None = None,
    normalized: bool = False,
    onesided: bool = True,
) -> mx.array:
    """Fourier transforms of frames: [..., T] -> [..., frequencies, frames].

    Args:
        x: The signal, already padded.
        n_fft: Length of a frame.
        hop: Distance between the starts of two frames.
        window: Weights, centred in the frame; None for ones.
        normalized: Divide by the square root of `n_fft`.
        onesided: Give n_fft // 2 + 1 frequencies instead of n_fft.
    """
    count = (x.shape[-1] - n_fft) // hop + 1
    places = mx.arange(count)[:, None] * hop + mx.arange(n_fft)
    frames = mx.take(x, places, axis=-1) * _centred(window, n_fft)
    transform = mx.fft.rfft if onesided else mx.fft.fft
    return transform(frames, norm="ortho" if normalized else "backward").swapaxes(
        -1, -2
    )


def istft(
    x: mx.array,
    n_fft: int,
    hop: int,
    window: mx.array | None = None,
    centred: bool = True,
    normalized: bool = False,
    onesided: bool = True,
    length: int | None = None,
) -> mx.array:
    """The signal of transformed frames: [..., frequencies, frames] -> [..., T].

    Args:
        x: Transforms, as `stft` gives them.
        n_fft: Length of a frame.
        hop: Distance between the starts of two frames.
        window: Weights, centred in the frame; None for ones.
        centred: Half a frame lies before the signal.
        normalized: Multiply by the square root of `n_fft`.
        onesided: `x` has n_fft // 2 + 1 frequencies, of a real signal.
        length: T; zeros follow where the frames end before. By default what they cover.
    """
    transform = mx.fft.irfft if onesided else mx.fft.ifft
    norm = "ortho" if normalized else "backward"
    frames = transform(x.swapaxes(-1, -2), n_fft, norm=norm)
    weights = mx.broadcast_to(_centred(window, n_fft), frames.shape[-2:])
    frames = frames * weights
    size = n_fft + hop * (frames.shape[-2] - 1)
    places = mx.arange(frames.shape[-2])[:, None] * hop + mx.arange(n_fft)
    total = mx.zeros((*frames.shape[:-2], size), frames.dtype)
    total = total.at[..., places].add(frames)
    squares = mx.zeros((size,), weights.dtype).at[places].add(mx.square(weights))
    start = n_fft // 2 if centred else 0
    end = start + length if length is not None else size - start
    y = total[..., start:end] / squares[start:end]
    missing = end - start - y.shape[-1]
    return mx.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, missing)]) if missing > 0 else y
