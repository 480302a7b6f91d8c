"""Short-time Fourier transforms."""

from __future__ import annotations

import mlx.core as mx


def stft(
    x: mx.array,
    n_fft: int,
    hop: int,
    length: int,
    window: mx.array | None,
    normalized: bool,
) -> mx.array:
    """Fourier transforms of frames: [..., T] -> [..., n_fft // 2 + 1, frames].

    Args:
        x: The signal, already padded.
        n_fft: Length of a frame.
        hop: Distance between the starts of two frames.
        length: Length of the window, centred in the frame.
        window: Weights [length]; None for ones.
        normalized: Divide by the square root of `n_fft`.
    """
    window = mx.ones((length,)) if window is None else window
    left = (n_fft - length) // 2
    window = mx.pad(window, (left, n_fft - length - left))
    count = (x.shape[-1] - n_fft) // hop + 1
    places = mx.arange(count)[:, None] * hop + mx.arange(n_fft)
    frames = mx.take(x, places, axis=-1) * window
    return mx.fft.rfft(frames, norm="ortho" if normalized else "backward").swapaxes(
        -1, -2
    )
