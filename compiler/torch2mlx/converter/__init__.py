"""Weights alone, layer by layer: with numpy and safetensors, without torch, mlx or a compile.

from torch2mlx.converter import convert, load_converted

convert(model, "weights.safetensors")
convert(arrays, "weights.safetensors", modules={"stem": "Conv2d", "head": "Linear"})
parameters = load_converted("weights.safetensors")
"""

from torch2mlx.converter.convert import (
    Conversion,
    ConversionWarning,
    convert,
    load_converted,
)
from torch2mlx.converter.rules import LAYERS, Rule, register
from torch2mlx.converter.trees import flatten, unflatten

__all__ = [
    "LAYERS",
    "Conversion",
    "ConversionWarning",
    "Rule",
    "convert",
    "flatten",
    "load_converted",
    "register",
    "unflatten",
]
