"""Whole models of torchvision, timm and transformers, compiled, run and compared.

A few run always, another part with `-m slow` each day, so that all of these come round in a week (ZOO=all
runs all at once). `-m zoo` adds one model of each family: names.txt.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.program import compare, compiled, run
from tests.support import declare_torchvision_ops

SIDE = 64
# Side of the image, or [frames, side] of the video, where it is not SIDE, by the beginning of the name
SHAPES: dict[str, tuple[int, ...]] = {
    "vit": (224, 224),
    "maxvit": (224, 224),
    "inception": (299, 299),
    **dict.fromkeys(("mc3", "r2plus1d", "r3d", "swin3d"), (8, 112, 112)),
    **dict.fromkeys(("mvit", "s3d"), (16, 224, 224)),
}
TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "lraspp_mobilenet_v3_large",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet50",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "vgg11_bn",
]
TIMM = [
    "convit_tiny",
    "efficientvit_m0",
    "ghostnet_050",
    "iformer_t",
    "lcnet_035",
    "levit_128s",
    "mobileone_s0",
    "resnet10t",
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_mambaout",
    "test_nfnet",
    "test_vit",
]
# Configuration class, model class, and what makes the model small
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37},
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4},
    ),
    "qwen2": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "intermediate_size": 37},
    ),
    "roberta": (
        "RobertaConfig",
        "RobertaModel",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"intermediate_size": 37},
    ),
}
# Of timm, where the image's size is fixed though timm does not say so
FIXED = ("convit", "deepseek_vit", "efficientvit_m", "halonet_h1", "levit", "test_")
FAST = ["torchvision:squeezenet1_1", "timm:resnet10t", "timm:test_vit"]
FAMILIES = (Path(__file__).parent / "names.txt").read_text().split()
NAMES = [
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *(f"transformers:{name}" for name in TRANSFORMERS),
]
DAYS = 7


def todays(names: list[Any]) -> list[Any]:
    """Those of `names` that are run today."""
    if os.environ.get("ZOO") == "all":
        return names
    return names[datetime.date.today().toordinal() % DAYS :: DAYS]


Inputs = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]


def _images(*shape: int) -> list[Inputs]:
    return [((torch.randn(batch, 3, *shape),), {}) for batch in (2, 3)]


def build(name: str) -> tuple[nn.Module, list[Inputs]]:
    """A model with random weights, and two sets of arguments for it."""
    declare_torchvision_ops()
    kind, _, name = name.partition(":")
    if kind == "torchvision":
        import torchvision.models

        options: dict[str, Any] = {"weights": None}
        if name.startswith(("deeplab", "fcn", "lraspp")):
            options["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            options.update(aux_logits=name != "googlenet", init_weights=False)
        found = (shape for start, shape in SHAPES.items() if name.startswith(start))
        shape = next(found, (SIDE, SIDE))
        return torchvision.models.get_model(name, **options), _images(*shape)
    if kind == "timm":
        import timm

        config = timm.models.get_pretrained_cfg(name)
        assert config is not None
        side = config.input_size[1]
        if not config.fixed_input_size and not name.startswith(FIXED):
            side = SIDE if name in TIMM else min(side, 160)
        return timm.create_model(name), _images(side, side)
    import transformers

    config, cls, sizes = TRANSFORMERS[name]
    made = getattr(transformers, config)(vocab_size=99, **sizes)
    made.use_cache = False
    inputs: list[Inputs] = []
    for batch, length in ((2, 16), (3, 11)):
        tokens = torch.randint(3, 99, (batch, length))
        mask = torch.ones(batch, length, dtype=torch.int64)
        inputs.append(((), {"input_ids": tokens, "attention_mask": mask}))
    return getattr(transformers, cls)(made), inputs


def spread(model: nn.Module) -> None:
    """Statistics and parameters that begin as constants hide faults: give them noise."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, 0, 0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.unique().numel() == 1:
            nn.init.normal_(parameter, parameter.flatten()[0].item(), 0.1)


def check(name: str) -> None:
    """Compile a model, and compare it at the size of the capture and at another."""
    torch.manual_seed(0)
    model, inputs = build(name)
    spread(model.eval())
    program = compiled(model, *inputs[0])
    module = program.load()
    for args, kwargs in inputs:
        with torch.no_grad():
            expected = model(*args, **kwargs)
        compare(program, expected, run(program, module, args, kwargs), 1e-3)


# Of the libraries that the models come from
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", FAST)
def test_fast_model(name: str) -> None:
    check(name)


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", todays(NAMES))
def test_model(name: str) -> None:
    check(name)


@pytest.mark.zoo
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in NAMES])
def test_family(name: str) -> None:
    check(name)
