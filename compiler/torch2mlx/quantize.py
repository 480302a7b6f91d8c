"""Weights of layers in few bits, by MLX itself, block by block of rows."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from torch2mlx.arrays import from_numpy
from torch2mlx.weights.plan import WeightPlan
from torch2mlx.weights.quantization import Quantization
from torch2mlx.weights.safetensors import DTYPES
from torch2mlx.weights.shards import Tensor

Array = NDArray[Any]

BLOCK = 32 << 20
FLOATS = ("F32", "F16", "BF16")


def suitable(
    layers: list[str], plan: WeightPlan, settings: Quantization, source: str
) -> list[str]:
    """The layers that can be quantized.

    That takes rows that are whole groups, and a weight that nothing but the layer itself reads.

    Args:
        layers: Paths of the layers that have a quantized form.
        plan: The weights.
        settings: How to quantize.
        source: The generated file.
    """
    shared = _read_directly(source)
    weights = {entry.key: entry for entry in plan.entries}
    return [
        layer
        for layer in layers
        if (entry := weights.get(f"{layer}.weight"))
        and entry.out_dtype in FLOATS
        and entry.out_shape[-1] % settings.group_size == 0
        and not shared & {"", *layer.split(".")}
    ]


def _read_directly(source: str) -> set[str]:
    """Attributes whose `weight` the code reads; "" where it does not say whose."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "weight":
            owner = node.value
            while isinstance(owner, ast.Subscript):
                owner = owner.value
            if isinstance(owner, ast.Attribute):
                found.add(owner.attr)
            elif not (isinstance(owner, ast.Name) and owner.id == "self"):
                found.add("")
    return found


class Quantizing(Mapping[str, Array]):
    """Arrays by key, those of some layers quantized when they are asked for.

    Args:
        layers: The layers to quantize.
        settings: How.
        tensors: Key, dtype and shape of the arrays.
        arrays: The arrays.
    """

    def __init__(
        self,
        layers: list[str],
        settings: Quantization,
        tensors: list[Tensor],
        arrays: Mapping[str, Array],
    ):
        self._settings = settings
        self._arrays = arrays
        self._dtypes = {key: dtype for key, dtype, _ in tensors}
        self._layer_of: dict[str, str] = {}
        self._last: tuple[str, dict[str, Array]] = ("", {})
        self.tensors: list[Tensor] = []
        chosen = {f"{layer}.weight": layer for layer in layers}
        for tensor in tensors:
            if tensor[0] not in chosen:
                self.tensors.append(tensor)
                continue
            layer = chosen[tensor[0]]
            made = settings.tensors(layer, *tensor[1:])
            self._layer_of |= {key: layer for key, _, _ in made}
            self.tensors += made

    def __iter__(self) -> Any:
        return (key for key, _, _ in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, key: str) -> Array:
        layer = self._layer_of.get(key)
        if layer is None:
            return self._arrays[key]
        if self._last[0] != layer:
            self._last = layer, {}
            weight = f"{layer}.weight"
            parts = quantize(self._arrays[weight], self._dtypes[weight], self._settings)
            self._last = layer, {
                f"{layer}.{name}": part for name, part in parts.items()
            }
        return self._last[1][key]


def quantize(array: Array, dtype: str, settings: Quantization) -> dict[str, Array]:
    """`weight`, `scales` and, in affine mode, `biases`."""
    rows = array.reshape(-1, array.shape[-1])
    parts: list[list[Array]] = []
    for block in _blocks(rows):
        made = mx.quantize(
            _to_mlx(block, dtype), settings.group_size, settings.bits, settings.mode
        )
        parts.append([_to_numpy(part) for part in made])
        mx.clear_cache()
    names = ("weight", "scales", "biases")
    return {
        name: np.concatenate(blocks).reshape(*array.shape[:-1], -1)
        for name, blocks in zip(names, zip(*parts, strict=True), strict=False)
    }


def dequantize(parts: Mapping[str, Array], dtype: str, settings: Quantization) -> Array:
    """The weight that `quantize` made `parts` of, as MLX computes with it.

    Args:
        parts: `weight`, `scales` and, in affine mode, `biases`.
        dtype: Of the result: that of the scales in affine mode.
        settings: How it was quantized.
    """
    shape = parts["weight"].shape[:-1]
    of_scales = dtype if settings.mode == "affine" else "U8"
    flat = {name: part.reshape(-1, part.shape[-1]) for name, part in parts.items()}
    results: list[Array] = []
    step = max(1, BLOCK // (flat["weight"].shape[1] * 32))
    for i in range(0, len(flat["weight"]), step):
        biases = flat.get("biases")
        made = mx.dequantize(
            mx.array(flat["weight"][i : i + step]),
            _to_mlx(flat["scales"][i : i + step], of_scales),
            None if biases is None else _to_mlx(biases[i : i + step], dtype),
            group_size=settings.group_size,
            bits=settings.bits,
            mode=settings.mode,
            dtype={"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[dtype],
        )
        results.append(_to_numpy(made))
        mx.clear_cache()
    return np.concatenate(results).reshape(*shape, -1)


def _blocks(rows: Array) -> list[Array]:
    step = max(1, BLOCK // (rows.shape[1] * rows.itemsize))
    return [rows[i : i + step] for i in range(0, len(rows), step)]


def _to_mlx(array: Array, dtype: str) -> mx.array:
    return from_numpy(array, bfloat16=dtype == "BF16")


def _to_numpy(array: mx.array) -> Array:
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(DTYPES["BF16"])
    return np.array(array)
