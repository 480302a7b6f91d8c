"""torchvision and timm by name: their inputs, and what is said about unknown names."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch2mlx.errors import InputError
from torch2mlx.source import libraries, load
from torch2mlx.source.loaded import RANDOM_WEIGHTS

pytestmark = pytest.mark.usefixtures("torchvision_models")


@pytest.mark.parametrize(
    ("spec", "inputs"),
    [
        ("torchvision:squeezenet1_1", "x: float32 [2, 3, 224, 224]"),
        ("torchvision:shufflenet_v2_x0_5", "x: float32 [2, 3, 224, 224]"),
        ("torchvision:r3d_18", "x: float32 [2, 3, 16, 112, 112]"),
        (
            "torchvision:raft_small",
            "image1: float32 [2, 3, 128, 128]; image2: float32 [2, 3, 128, 128]",
        ),
    ],
)
def test_torchvision(spec: str, inputs: str):
    source = load(spec)
    assert source.name == spec.partition(":")[2]
    assert source.description == f"{inputs}, as torchvision feeds it"
    assert source.notes == (RANDOM_WEIGHTS,)
    assert f"float32 {list(source.args[0].shape)}" in inputs


def test_segmentation_downloads_no_backbone():
    source = load("torchvision:lraspp_mobilenet_v3_large")
    assert source.args[0].shape == (2, 3, 224, 224)


def test_inception_is_larger():
    _, _, line = libraries._torchvision_example(
        "inception_v3", "inception", torch.nn.ReLU()
    )
    assert "[2, 3, 299, 299]" in line


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("timm:resnet10t", (2, 3, 176, 176)),
        ("timm:vit_tiny_patch16_224", (2, 3, 224, 224)),
        ("timm:test_vit.r160_in1k", (2, 3, 160, 160)),
    ],
)
def test_timm(spec: str, shape: tuple[int, ...]):
    source = load(spec)
    assert source.name == spec.partition(":")[2]
    assert source.args[0].shape == shape
    assert source.description == (
        f"x: float32 {list(shape)}, as timm's pretrained_cfg says"
    )
    assert source.notes == (RANDOM_WEIGHTS,)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            "torchvision:resnet81",
            "torchvision has no model 'resnet81'; did you mean torchvision:resnet18 or "
            "torchvision:resnet152 or torchvision:resnet101?",
        ),
        (
            "torchvision:qqqq",
            "torchvision has no model 'qqqq'; torchvision lists its models with "
            "torchvision.models.list_models()",
        ),
        (
            "timm:qqqq",
            "timm has no model 'qqqq'; timm lists its models with timm.list_models()",
        ),
    ],
)
def test_unknown_name(spec: str, why: str):
    with pytest.raises(InputError) as caught:
        load(spec)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("name", "close"),
    [("rsnet18", "timm:resnet18"), ("resnet18.a9_in1k", "timm:resnet18.a1_in1k")],
)
def test_unknown_timm_name(name: str, close: str):
    with pytest.raises(
        InputError, match=rf"^timm has no model '{name}'; did you"
    ) as caught:
        load(f"timm:{name}")
    assert close in str(caught.value)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


LOAD = """
from torch2mlx.source import load
try:
    load({spec!r})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_library_that_is_not_installed(monkeypatch, library: str):
    for name in (library, f"{library}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as caught:
        load(f"{library}:resnet18")
    assert str(caught.value) == (
        f"{library}: sources need {library}, which is not installed: "
        f"pip install {library}"
    )


@pytest.mark.parametrize("kind", ["torchvision", "hf"])
def test_torchvision_that_does_not_fit_torch(tmp_path: Path, kind: str):
    """As `import torchvision` fails beside another build of torch."""
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    broken = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
    config = {"model_type": "vit", "architectures": ["ViTModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = "torchvision:resnet18" if kind == "torchvision" else f"hf:{tmp_path}"
    what = {
        "torchvision": "torchvision: `import torchvision.models` fails: RuntimeError",
        "hf": f"{spec}: transformers cannot import ViTModel",
    }
    version = importlib.metadata.version("torchvision")
    assert run(broken + LOAD.format(spec=spec)) == (
        f"InputError {what[kind]}: operator torchvision::nms does not exist; "
        f"torchvision {version} does not fit torch {torch.__version__}, install the "
        "builds that belong together"
    )
