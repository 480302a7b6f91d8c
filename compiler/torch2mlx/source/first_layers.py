"""What an input must look like, told by the first layer or operator that consumes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Shape = tuple[int, ...]

# torch.export fixes sizes of 0 and 1, so a batch has two
BATCH = 2
LENGTH = 16
# The sizes that image models are made for, the likely ones first
SIDES = (64, 224, 32, 28, 128, 96, 256, 299, 384, 16, 8)
LENGTHS = (64, 256, 1024, 16000, 32, 16)
DEPTHS = (16, 32, 8, 64)


@dataclass(frozen=True)
class Need:
    """What one input must be.

    Attributes:
        shapes: Possible shapes, the likeliest first.
        dtype: Element type.
        source: Who says so, e.g. `conv1 (Conv2d)`.
        limit: Integers must be below it; 0 for other dtypes.
    """

    shapes: tuple[Shape, ...]
    dtype: torch.dtype = torch.float32
    source: str = ""
    limit: int = 0


def of_module(module: nn.Module, position: int, path: str) -> Need | None:
    """What the layer `module` needs as its argument number `position`; None if it takes anything."""
    for classes, shapes in _LAYERS:
        if isinstance(module, classes):
            found = shapes(module, position)
            source = f"{path} ({type(module).__name__})"
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                return Need(found, torch.int64, source, module.num_embeddings)
            # Lazy layers do not know their sizes
            known = found and min(map(min, found)) > 0
            return Need(found, _dtype(module), source) if known else None
    return None


def of_function(function: object, weight: torch.Tensor, path: str) -> Need | None:
    """What an operator needs beside `weight`, its second argument."""
    name = getattr(function, "__name__", str(function))
    shape = tuple(weight.shape)
    source = f"{path} ({name})"
    if function is F.embedding:
        return Need(_tokens(), torch.int64, source, shape[0])
    shapes = _operand(function, name, shape)
    return Need(shapes, weight.dtype, source) if shapes else None


def _operand(function: object, name: str, weight: Shape) -> tuple[Shape, ...]:
    if function is F.linear:
        return _features(weight[-1])
    if name.startswith("conv_transpose") and len(weight) > 2:
        return _grid(weight[0], len(weight) - 2)
    if name.startswith("conv") and len(weight) > 2:
        # Of a grouped convolution the weight tells no channel count
        return _grid(weight[1], len(weight) - 2)
    if name in ("matmul", "mm", "bmm") and len(weight) >= 2:
        return _features(weight[-2])
    if name in ("add", "mul", "sub", "truediv") and weight:
        return ((weight if len(weight) > 1 else (BATCH, *weight)),)
    return ()


def _dtype(module: nn.Module) -> torch.dtype:
    kinds = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def _features(size: int) -> tuple[Shape, ...]:
    return (BATCH, size), (BATCH, LENGTH, size), (BATCH, 8, 8, size)


def _tokens() -> tuple[Shape, ...]:
    return (BATCH, LENGTH), (BATCH,), (BATCH, 8, LENGTH)


def _grid(channels: int, dims: int) -> tuple[Shape, ...]:
    if dims == 1:
        return tuple((BATCH, channels, length) for length in LENGTHS)
    if dims == 2:
        return tuple((BATCH, channels, side, side) for side in SIDES)
    volumes = ((depth, side) for side in (32, 64, 112, 224) for depth in DEPTHS)
    return tuple((BATCH, channels, depth, side, side) for depth, side in volumes)


def _sequence(size: int, batch_first: bool) -> tuple[Shape, ...]:
    return ((BATCH, LENGTH, size) if batch_first else (LENGTH, BATCH, size),)


def _normalized(shape: Shape) -> tuple[Shape, ...]:
    return (BATCH, *shape), (BATCH, LENGTH, *shape), (BATCH, 8, 8, *shape)


def _channels(size: int) -> tuple[Shape, ...]:
    return *_grid(size, 2), (BATCH, size, LENGTH), (BATCH, size)


def _attention(module: Any, position: int) -> tuple[Shape, ...]:
    if position > 2:
        return ()
    size = (module.embed_dim, module.kdim, module.vdim)[position]
    return _sequence(size, module.batch_first)


def _transformer(module: Any, position: int) -> tuple[Shape, ...]:
    if position > 1:
        return ()
    attention = next(
        m for m in module.modules() if isinstance(m, nn.MultiheadAttention)
    )
    return _sequence(attention.embed_dim, attention.batch_first)


def _bilinear(module: Any, position: int) -> tuple[Shape, ...]:
    return _features((module.in1_features, module.in2_features)[position])


def _convolution(module: Any, position: int) -> tuple[Shape, ...]:
    return _grid(module.in_channels, len(module.kernel_size))


_TRANSFORMERS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
_CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

# Possible shapes by layer class; an empty result means that this argument may be anything
_LAYERS: tuple[
    tuple[tuple[type[nn.Module], ...], Callable[[Any, int], tuple[Shape, ...]]],
    ...,
] = (
    ((nn.Linear,), lambda m, _: _features(m.in_features)),
    ((nn.Bilinear,), _bilinear),
    (_CONVOLUTIONS, _convolution),
    ((nn.Embedding, nn.EmbeddingBag), lambda m, _: _tokens()),
    ((nn.LayerNorm, nn.RMSNorm), lambda m, _: _normalized(tuple(m.normalized_shape))),
    (
        (nn.BatchNorm1d,),
        lambda m, _: ((BATCH, m.num_features), (BATCH, m.num_features, LENGTH)),
    ),
    ((nn.BatchNorm2d, nn.InstanceNorm2d), lambda m, _: _grid(m.num_features, 2)),
    ((nn.BatchNorm3d, nn.InstanceNorm3d), lambda m, _: _grid(m.num_features, 3)),
    ((nn.InstanceNorm1d,), lambda m, _: _grid(m.num_features, 1)),
    ((nn.GroupNorm,), lambda m, _: _channels(m.num_channels)),
    (
        _RECURRENT,
        lambda m, p: _sequence(m.input_size, m.batch_first) if p == 0 else (),
    ),
    (_CELLS, lambda m, p: ((BATCH, m.input_size if p == 0 else m.hidden_size),)),
    ((nn.MultiheadAttention,), _attention),
    (_TRANSFORMERS, _transformer),
)
