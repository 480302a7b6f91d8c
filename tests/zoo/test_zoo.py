"""Whole models of torchvision, timm and transformers, compiled, run and compared.

Each day another part of them is run, so that all come round in a week; ZOO=all runs all at once.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import pytest
import torch
from torch import nn

from tests.program import compare, compiled, run
from tests.support import declare_torchvision_ops

pytestmark = [pytest.mark.zoo, pytest.mark.slow]

SIDE = 64
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
NAMES = [
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *(f"transformers:{name}" for name in TRANSFORMERS),
]
DAYS = 7


def todays() -> list[str]:
    """The models that are run today."""
    if os.environ.get("ZOO") == "all":
        return NAMES
    return NAMES[datetime.date.today().toordinal() % DAYS :: DAYS]


Inputs = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]


def _images(side: int = SIDE) -> list[Inputs]:
    return [((torch.randn(batch, 3, side, side),), {}) for batch in (2, 3)]


def build(name: str) -> tuple[nn.Module, list[Inputs]]:
    """A model with random weights, and two sets of arguments for it."""
    declare_torchvision_ops()
    kind, _, name = name.partition(":")
    if kind == "torchvision":
        import torchvision.models

        options: dict[str, Any] = {"weights": None}
        if name.startswith("lraspp"):
            options["weights_backbone"] = None
        if name == "googlenet":
            options.update(aux_logits=False, init_weights=False)
        return torchvision.models.get_model(name, **options), _images()
    if kind == "timm":
        import timm

        fixed = any(part in name for part in ("convit", "efficientvit_m", "levit"))
        fixed = fixed or name.startswith("test_")
        side = timm.models.get_pretrained_cfg(name).input_size[1] if fixed else SIDE
        return timm.create_model(name), _images(side)
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


@pytest.mark.filterwarnings("default")  # of the libraries that the models come from
@pytest.mark.parametrize("name", todays())
def test_model(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = build(name)
    spread(model.eval())
    program = compiled(model, *inputs[0])
    module = program.load()
    for args, kwargs in inputs:
        with torch.no_grad():
            expected = model(*args, **kwargs)
        compare(program, expected, run(program, module, args, kwargs), 1e-3)
