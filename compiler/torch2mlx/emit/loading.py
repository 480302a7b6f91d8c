"""How the weights of a folder are stored, as far as `load_model` has to know."""

from __future__ import annotations

from dataclasses import dataclass

from torch2mlx.weights.quantization import Quantization


@dataclass(frozen=True)
class Loading:
    """How the weights are stored.

    Attributes:
        sharded: In several files.
        quantized: How the layers that have scales are quantized, None if none is.
    """

    sharded: bool = False
    quantized: Quantization | None = None


PLAIN = Loading()
