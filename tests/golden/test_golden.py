"""The generated files of a fixed list of models, reviewed as diffs.

`pytest --update-golden` rewrites them. Each is also run and compared with PyTorch.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.golden.models import MODELS
from tests.program import check, compare, compiled, run
from tests.support import declare_torchvision_ops
from torch2mlx.api import Program

GOLDEN = Path(__file__).parents[2] / "golden"


@cache
def program_of(name: str) -> Program:
    """The compiled model, run and compared at its own sizes and at others."""
    torch.manual_seed(0)
    model, args, kwargs = MODELS[name]()
    _spread(model)
    if name == "vit_b_32":  # see test_vit_b_32
        return compiled(model, args)
    if kwargs:
        return check(model, args, kwargs=kwargs, tolerance=1e-4)
    (x,) = args
    others = [torch.randn(3, *x.shape[1:])]
    if name == "resnet18":
        others.append(torch.randn(2, 3, 96, 80))
    return check(model, args, *((other,) for other in others), tolerance=1e-4)


def _spread(model: nn.Module) -> None:
    """Values for parameters that begin as constants: a zero head hides whatever is before it."""
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.unique().numel() == 1:
            nn.init.normal_(parameter, parameter.flatten()[0].item(), 0.1)


def files_of(name: str) -> dict[str, str]:
    """What is committed for a model."""
    program = program_of(name)
    inputs = [
        {
            "name": item.argument,
            "shape": list(item.example.shape),
            "dtype": str(item.example.dtype),
        }
        for item in program.captured.inputs
    ]
    return {
        "model_mlx.py": program.source,
        "weights.json": program.plan.to_json(),
        "config.json": json.dumps(program.config, indent=4, sort_keys=True) + "\n",
        "inputs.json": json.dumps(inputs, indent=4) + "\n",
    }


@pytest.mark.parametrize("name", MODELS)
def test_golden(name: str, update_golden: bool) -> None:
    folder = GOLDEN / name
    files = files_of(name)
    if update_golden:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    stale: list[str] = []
    for file, text in files.items():
        path = folder / file
        old = path.read_text() if path.exists() else ""
        if old != text:
            diff = difflib.unified_diff(
                old.splitlines(True),
                text.splitlines(True),
                f"golden/{name}/{file}",
                "generated",
            )
            stale.append("".join(diff))
    command = f"pytest tests/golden --update-golden -k {name}"
    assert not stale, f"{command}\n" + "\n".join(stale)


@pytest.mark.slow
def test_vit_b_32() -> None:
    """MLX takes its time for images of 224 pixels on a CPU."""
    torch.manual_seed(0)
    model, args, _ = MODELS["vit_b_32"]()
    _spread(model)
    check(model, args, (torch.randn(3, 3, 224, 224),), tolerance=1e-4)


def test_a_small_vision_transformer() -> None:
    torch.manual_seed(0)
    declare_torchvision_ops()
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 2, 4, 32, 48, num_classes=10)
    _spread(model)
    check(
        model,
        (torch.randn(2, 3, 64, 64),),
        (torch.randn(3, 3, 64, 64),),
        tolerance=1e-4,
    )


def test_bert_at_other_sizes() -> None:
    """Other batches and sequence lengths, with padding."""
    program = program_of("bert")
    model: Any = program.model
    generator = torch.Generator().manual_seed(1)
    for batch, length in ((3, 16), (2, 7), (1, 24)):
        tokens = torch.randint(0, 99, (batch, length), generator=generator)
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, length // 2 :] = 0
        inputs = {"input_ids": tokens, "attention_mask": mask}
        with torch.no_grad():
            expected = model(**inputs)
        actual = run(program, program.load(), (), inputs)
        compare(program, expected, actual, 1e-4)
