"""The 64 models on which the ways from PyTorch to MLX are compared, and their inputs.

One of most families of torchvision's image, segmentation and video models, small models of 25 families of
timm, and 12 architectures of `transformers` at tiny sizes. Weights are random.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import torch
from noise import randomise
from torch import nn

from support import declare_torchvision_ops

Inputs = dict[str, torch.Tensor]
BATCH, SIDE, LENGTH = 2, 64, 12
SETTLING = 16  # inputs from which batch norm takes its statistics

# Name -> shape of one input, where it is no image of 64 x 64
TORCHVISION: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large"), ()),
    **dict.fromkeys(("densenet121", "efficientnet_b0", "efficientnet_v2_s"), ()),
    **dict.fromkeys(("fcn_resnet50", "googlenet"), ()),
    "inception_v3": (3, 96, 96),
    "lraspp_mobilenet_v3_large": (),
    "maxvit_t": (3, 224, 224),
    **dict.fromkeys(("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small"), ()),
    "r2plus1d_18": (3, 8, 64, 64),
    "r3d_18": (3, 8, 64, 64),
    **dict.fromkeys(("regnet_y_400mf", "resnet18", "resnet50"), ()),
    "resnext50_32x4d": (),
    **dict.fromkeys(("shufflenet_v2_x0_5", "squeezenet1_1"), ()),
    "swin3d_t": (3, 8, 64, 64),
    **dict.fromkeys(("swin_t", "swin_v2_t", "vgg11", "vit_b_32"), ()),
}
SEGMENTATION = ("deeplabv3_mobilenet_v3_large", "fcn_resnet50")
SEGMENTATION += ("lraspp_mobilenet_v3_large",)
# What a model must be told about the size of its inputs
OPTIONS: dict[str, dict[str, Any]] = {
    "vit_b_32": {"image_size": 64},
    **{name: {"weights_backbone": None} for name in SEGMENTATION},
}
TIMM = (
    *("coat_lite_tiny", "crossvit_9_240", "deit_tiny_distilled_patch16_224"),
    *("dla46_c", "edgenext_xx_small", "efficientformer_l1", "efficientvit_b0"),
    *("fastvit_t8", "ghostnet_050", "gmlp_ti16_224", "hrnet_w18_small", "lcnet_035"),
    *("levit_128s", "mixer_s32_224", "mobilenetv4_conv_small_035", "mobilevit_xxs"),
    *("pit_ti_224", "poolformer_s12", "pvt_v2_b0", "repvgg_a0", "resnet10t"),
    *("rexnet_100", "test_coatnet", "test_nfnet", "xcit_nano_12_p16_224"),
)
# Sizes by the names that configurations have for them
LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**LAYERS, "intermediate_size": 96, "vocab_size": 1000, "pad_token_id": 0}
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 16}
PICTURE = {**LAYERS, "intermediate_size": 96, "image_size": SIDE, "patch_size": 16}
CAUSAL = "AutoModelForCausalLM"
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AutoModel", {**TEXT, "embedding_size": 32}),
    "bert": ("AutoModel", TEXT),
    "dinov2": ("AutoModel", PICTURE),
    "distilbert": (
        "AutoModel",
        {"vocab_size": 1000, "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4},
    ),
    "electra": ("AutoModel", {**TEXT, "embedding_size": 32}),
    "gpt2": (
        CAUSAL,
        {"vocab_size": 1000, "n_embd": 64, "n_layer": 2, "n_head": 4}
        | {"bos_token_id": 0, "eos_token_id": 0},
    ),
    "llama": (CAUSAL, GROUPED),
    "mpnet": ("AutoModel", TEXT),
    "qwen3": (CAUSAL, GROUPED),
    "roberta": ("AutoModel", TEXT),
    "t5": (
        "AutoModel",
        {"vocab_size": 1000, "d_model": 64, "d_kv": 16, "d_ff": 96}
        | {"num_layers": 2, "num_heads": 4},
    ),
    "vit": ("AutoModel", PICTURE),
}
NAMES = (
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *(f"transformers:{name}" for name in TRANSFORMERS),
)


def load_libraries() -> None:
    """Import what the models come from; a second or so each."""
    declare_torchvision_ops()
    import timm
    import torchvision.models
    import transformers

    assert timm
    assert torchvision.models
    assert transformers.AutoModel


def build(name: str) -> tuple[nn.Module, Inputs, Inputs]:
    """A model in evaluation mode, and two draws of its inputs, by the names of its arguments.

    Args:
        name: One of `NAMES`.

    Returns:
        The model, the inputs to convert it with, and others of the same shapes to compare it with.
    """
    library, _, name = name.partition(":")
    torch.manual_seed(0)
    model, draw = {
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": _transformers,
    }[library](name)
    randomise(model.eval())
    _settle(model, draw)
    return model.requires_grad_(False), draw(), draw()


@torch.no_grad()
def _settle(model: nn.Module, draw: Callable[[], Inputs]) -> None:
    # With other statistics the signal of a deep model drowns in its biases, with those of few images it
    # blows up rounding errors: PyTorch in float32 would not match PyTorch in float64
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None  # the plain mean, not a moving one
    draws = [draw() for _ in range(SETTLING // BATCH)]
    model(**{name: torch.cat([each[name] for each in draws]) for name in draws[0]})
    for norm, momentum in zip(norms, before, strict=True):
        norm.eval().momentum = momentum


def _torchvision(name: str) -> tuple[nn.Module, Callable[[], Inputs]]:
    import torchvision.models

    options = OPTIONS.get(name, {})
    model = torchvision.models.get_model(name, weights=None, **options)
    shape = TORCHVISION[name] or (3, SIDE, SIDE)
    return model, lambda: {_first(model): torch.randn(BATCH, *shape)}


def _timm(name: str) -> tuple[nn.Module, Callable[[], Inputs]]:
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    shape = config.input_size if config.fixed_input_size else (3, SIDE, SIDE)
    model = timm.create_model(name)
    return model, lambda: {_first(model): torch.randn(BATCH, *shape)}


def _first(model: nn.Module) -> str:
    # What `forward` calls its input
    return model.forward.__code__.co_varnames[1]


def _transformers(name: str) -> tuple[nn.Module, Callable[[], Inputs]]:
    import transformers

    kind, sizes = TRANSFORMERS[name]
    config = transformers.AutoConfig.for_model(name, **sizes)
    config.use_cache = False
    model = getattr(transformers, kind).from_config(config)
    if sizes is PICTURE:
        return model, lambda: {"pixel_values": torch.randn(BATCH, 3, SIDE, SIDE)}

    def tokens() -> Inputs:
        ids = torch.randint(3, 1000, (2 * BATCH, LENGTH))
        mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
        mask[-1, -3:] = 0  # padding
        inputs = {"input_ids": ids[:BATCH], "attention_mask": mask}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids[BATCH:]
        return inputs

    return model, tokens
