"""What one call of a generated vision model costs a GPU: kernels, copies, and kernels that no input needs.

    .venv/bin/python benchmarks/costs.py --counter cost.py [resnet50 swin_t ...]

As compiled, with `--fold-bn`, and with the layout assignment off; then what hand-written MLX ports cost, and
the best version of them that is known. The counter is a Python file with `cost(function, *inputs) -> dict`,
which has the numbers under "kernels", "copies" and "foldable". Every model sees one image, of 64 x 64 pixels
unless the table says otherwise; weights are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import models
import torch
from counter import Counter, load_counter

import torch2mlx

Counts = tuple[int, int, int]  # kernels, copies, foldable kernels


@dataclass(frozen=True)
class Known:
    """What is known of a model.

    Attributes:
        side: Of the image.
        hand: What the hand-written port costs, if there is one.
        best: What its best version costs.
    """

    side: int = 64
    hand: Counts | None = None
    best: Counts | None = None


MODELS = {
    "resnet18": Known(64, (170, 1, 40), (70, 1, 0)),
    "resnet50": Known(64, (441, 1, 106), (176, 1, 0)),
    "efficientnet_b0": Known(64, (532, 0, 98), (287, 0, 0)),
    "mobilenet_v2": Known(64, (412, 0, 104), (152, 0, 0)),
    "mobilenet_v3_small": Known(64, (380, 0, 68), (210, 0, 0)),
    "regnet_x_400mf": Known(64, (589, 0, 142), (234, 0, 0)),
    "regnet_y_400mf": Known(64, (583, 0, 106), (318, 0, 0)),
    "vit_b_32": Known(224, (198, 13, 0), (150, 1, 0)),
    "swin_t": Known(224, (396, 171, 51), (236, 55, 0)),
    "convnext_tiny": Known(),
    "densenet121": Known(),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "folded": {"fold_bn": True},
    "layout off": {"disable": ["layout"]},
}
WIDTH = 14


def counts(name: str, side: int, options: dict[str, Any], counter: Counter) -> Counts:
    """What one call of a model costs."""
    import torchvision.models

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    image = torch.randn(1, 3, side, side)
    program = torch2mlx.compile(model, (image,), **options)
    is_last = "layout" not in options.get("disable", ())
    array = image.permute(0, 2, 3, 1) if is_last else image
    found = counter(program.load(), mx.array(array.numpy()), timing=False)
    return found["kernels"], found["copies"], found["foldable"]


def rows(names: Sequence[str], counter: Counter) -> Iterator[list[str]]:
    """The table, row by row."""
    yield ["kernels copies foldable", *VARIANTS, "hand", "best"]
    for name in names:
        known = MODELS[name]
        ours = [counts(name, known.side, o, counter) for o in VARIANTS.values()]
        yield [name, *(_text(c) for c in (*ours, known.hand, known.best))]


def _text(found: Counts | None) -> str:
    return "-" if found is None else " ".join(map(str, found))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, a row when each model is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--counter", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - MODELS.keys():
        parser.error(f"not in the table: {', '.join(sorted(unknown))}")
    models.declare_torchvision_ops()
    for row in rows(options.names or list(MODELS), load_counter(options.counter)):
        first, *others = row
        print(first.ljust(24), *(cell.ljust(WIDTH) for cell in others), flush=True)


if __name__ == "__main__":
    main()
