"""Detection models of torchvision: what compiles, and what a user reads where they do not.

Which boxes are kept depends on values, so that torch.export captures none of them whole. The rest of each
does: the backbone with its feature pyramid, and the heads, which hold all weights.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torch2mlx
from tests.program import compare, compiled, run
from tests.support import declare_torchvision_ops
from tests.zoo.test_zoo import spread

pytestmark = [pytest.mark.zoo, pytest.mark.slow]

NAMES = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
]


class Dense(nn.Module):
    """All but the choice of boxes: the outputs of the dense heads for each level of the pyramid."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.rpn.head if hasattr(model, "rpn") else model.head

    def forward(self, images: torch.Tensor) -> Any:
        features = self.backbone(images)
        return self.head(list(features.values()))


class Boxes(nn.Module):
    """What runs on the features of each proposed box, of 7 x 7 or 14 x 14."""

    def __init__(self, heads: Any, name: str) -> None:
        super().__init__()
        self.head = getattr(heads, f"{name}_head")
        self.predictor = getattr(heads, f"{name}_predictor")

    def forward(self, features: torch.Tensor) -> Any:
        return self.predictor(self.head(features))


def build(name: str) -> Any:
    declare_torchvision_ops()
    import torchvision.models

    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    model = torchvision.models.get_model(name, **options)
    spread(model.eval())
    return model


def check(module: nn.Module, *inputs: torch.Tensor) -> None:
    module.eval()
    program = compiled(module, (inputs[0],))
    generated = program.load()
    for x in inputs:
        with torch.no_grad():
            expected = module(x)
        compare(program, expected, run(program, generated, (x,), {}), 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_parts(name: str) -> None:
    model = build(name)
    side = 320 if name.startswith("ssdlite") else 64
    check(Dense(model), torch.randn(2, 3, side, side), torch.randn(3, 3, side, side))
    heads = getattr(model, "roi_heads", None)
    for part, size in (("box", 7), ("mask", 14), ("keypoint", 14)):
        if getattr(heads, f"{part}_head", None) is not None:
            shapes = ((count, 256, size, size) for count in (2, 3))
            check(Boxes(heads, part), *map(torch.randn, shapes))


def test_whole() -> None:
    """One line says what cannot be captured, and the next two where and what to do."""
    with pytest.raises(torch2mlx.CaptureError) as error:
        torch2mlx.compile(build("fcos_resnet50_fpn"), ([torch.rand(3, 64, 64)],))
    cause, line, rewrite = str(error.value).splitlines()
    assert cause.startswith("torch.export cannot capture the model: how many boxes ")
    assert "torchvision/ops/boxes.py:" in line
    assert "backbone" in rewrite
