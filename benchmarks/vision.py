"""Compile vision models of torchvision and timm, and compare each with PyTorch, as one table.

    .venv/bin/python benchmarks/vision.py torchvision:resnet18 timm:resnet10t ... [--fold-bn]
    .venv/bin/python benchmarks/vision.py --all torchvision

For each model: right, wrong or refused; the relative error as compiled, for another batch and another size;
seconds of CPU; lines of code; MLX operations of one call, and how many of them only move data.
"""

from __future__ import annotations

import argparse
import io
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.utils
import models
import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import torch2mlx

SIDE, OTHER_SIDE = 64, 96
SIDES = {"vit": 224, "maxvit": 224, "inception": 299, "googlenet": 224}
VIDEO = ("mc3", "r2plus1d", "r3d", "s3d", "mvit", "swin3d")
OTHER_TASKS = ("rcnn", "retinanet", "fcos", "ssd", "raft", "quantized")
COLUMNS = ("model", "status", "as compiled", "other batch", "other size")
COLUMNS += ("CPU s", "lines", "operations", "moves")
VIEWS = {
    *("Broadcast", "BroadcastAxes", "ExpandDims", "Flatten", "NumberOfElements"),
    *("Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten"),
}
MOVES = {
    *("AsType", "Concatenate", "Contiguous", "Gather", "GatherAxis", "Pad"),
    *("Scatter", "SliceUpdate"),
}
TOLERANCE = 1e-3


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A model with random weights, and the shape of one of its inputs."""
    kind, _, name = name.partition(":")
    if kind == "timm":
        import timm

        config = timm.models.get_pretrained_cfg(name)
        return timm.create_model(name), tuple(config.input_size)
    import torchvision.models

    backbone = any(part in name for part in ("deeplab", "fcn", "lraspp"))
    options = {"weights_backbone": None} if backbone else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    if name.startswith(VIDEO):
        return model, (3, 16, 224, 224) if name[0] in "ms" else (3, 8, 112, 112)
    side = next((s for prefix, s in SIDES.items() if name.startswith(prefix)), SIDE)
    return model, (3, side, side)


def names(kind: str) -> list[str]:
    """All models of a library that take one image or video."""
    if kind == "timm":
        import timm

        return [f"timm:{name}" for name in timm.list_models()]
    import torchvision.models

    found = torchvision.models.list_models()
    return [f"torchvision:{n}" for n in found if not any(t in n for t in OTHER_TASKS)]


def operations(function: Any, x: mx.array) -> tuple[int, int]:
    """How many operations one call launches, and how many of these only move data."""
    result = function(x)
    text = io.StringIO()
    arrays = [array for _, array in mlx.utils.tree_flatten(result)]
    mx.export_to_dot(text, *arrays)
    counts = Counter(re.findall(r'\[label ="([^"]+)"', text.getvalue()))
    launched = {name: count for name, count in counts.items() if name not in VIEWS}
    moves = sum(count for name, count in launched.items() if name in MOVES)
    return sum(launched.values()), moves


def measure(name: str, fold_bn: bool) -> Iterator[str]:
    """The columns after the name, as text."""
    torch.manual_seed(0)
    model, shape = build(name)
    models.randomise(model.eval())

    def images(batch: int, more: int = 0) -> torch.Tensor:
        *front, height, width = shape
        return torch.randn(batch, *front, height + more, width + more)

    start = time.process_time()
    try:
        program = torch2mlx.compile(
            model, (images(2),), io_layout="torch", fold_bn=fold_bn
        )
    except torch2mlx.Torch2MLXError as error:
        yield from ("refused", str(error).partition("\n")[0])
        return
    seconds = time.process_time() - start
    generated = program.load()
    errors = [
        error_of(model, generated, x)
        for x in (images(2), images(3), images(2, OTHER_SIDE - SIDE))
    ]
    yield "right" if _is_small(errors[0]) else "wrong"
    yield from errors
    yield f"{seconds:.1f}"
    yield str(sum(bool(line.strip()) for line in program.source.splitlines()))
    yield from map(str, operations(generated, mx.array(images(1).numpy())))


@torch.no_grad()
def error_of(model: nn.Module, generated: Any, x: torch.Tensor) -> str:
    """The largest difference of all outputs, relative to the largest value of its output."""
    try:
        expected = tree_leaves(model(x))
    except Exception:
        return "PyTorch refuses"
    try:
        result = generated(mx.array(x.numpy()))
    except ValueError:
        return "refused"
    found = [np.array(array) for _, array in mlx.utils.tree_flatten(result)]
    if [have.shape for have in found] != [tuple(want.shape) for want in expected]:
        return "inf"
    pairs = zip(found, (want.numpy() for want in expected), strict=True)
    worst = max(abs(have - want).max() / abs(want).max() for have, want in pairs)
    return f"{worst:.0e}"


def _is_small(error: str) -> bool:
    try:
        return float(error) <= TOLERANCE
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, a line when each model is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", choices=("torchvision", "timm"))
    parser.add_argument("--fold-bn", action="store_true")
    options = parser.parse_args(argv)
    models.declare_torchvision_ops()
    chosen = [*options.names, *(names(options.all) if options.all else [])]
    print(" | ".join(COLUMNS))
    print(" | ".join("---" for _ in COLUMNS))
    for name in chosen:
        print(" | ".join([name, *measure(name, options.fold_bn)]), flush=True)


if __name__ == "__main__":
    main()
