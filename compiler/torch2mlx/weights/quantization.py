"""How layers are quantized: the modes of MLX, and what their arrays look like."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch2mlx.errors import InputError
from torch2mlx.weights.plan import Shape
from torch2mlx.weights.shards import Tensor

# Mode -> (group sizes, bits), the defaults of mlx_lm first
MODES = {
    "affine": ((64, 32, 128), (4, 2, 3, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "nvfp4": ((16,), (4,)),
    "mxfp8": ((32,), (8,)),
}


@dataclass(frozen=True)
class Quantization:
    """How layers are quantized; the names are those of `mlx.nn.quantize` and of config.json."""

    group_size: int
    bits: int
    mode: str = "affine"

    def config(self) -> dict[str, Any]:
        """What config.json holds: as mlx_lm writes it, under both names."""
        return {"quantization": asdict(self), "quantization_config": asdict(self)}

    def tensors(self, layer: str, dtype: str, shape: Shape) -> list[Tensor]:
        """The arrays that a weight of a layer becomes."""
        *rows, columns = shape
        groups = (*rows, columns // self.group_size)
        packed = (*rows, columns * self.bits // 32)
        weight = (f"{layer}.weight", "U32", packed)
        if self.mode != "affine":
            return [weight, (f"{layer}.scales", "U8", groups)]
        return [
            weight,
            (f"{layer}.scales", dtype, groups),
            (f"{layer}.biases", dtype, groups),
        ]


def quantization(bits: int, group_size: int | None, mode: str) -> Quantization:
    """The settings, with the mode's default group size.

    Raises:
        InputError: MLX has no such quantization.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; the modes are {', '.join(MODES)}")
    sizes, widths = MODES[mode]
    size = sizes[0] if group_size is None else group_size
    for name, value, allowed in (
        ("bits", bits, widths),
        ("group_size", size, sizes),
    ):
        if value not in allowed:
            listed = ", ".join(map(str, sorted(allowed)))
            raise InputError(f"{name} of mode {mode} can be {listed}, not {value}")
    return Quantization(size, bits, mode)
