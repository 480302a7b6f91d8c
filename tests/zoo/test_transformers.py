"""Small models of transformers with inputs as `hf:` infers them: other batch, other length, padding, half precision.

A few run always; `-m zoo` with ZOO=all runs all, in both implementations of attention.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.lowering import to_numpy
from tests.program import check_invariants, compare, run
from tests.support import declare_torchvision_ops
from tests.zoo.test_zoo import spread, todays
from torch2mlx.lower.registry import DTYPES
from torch2mlx.source.transformers_inputs import example

# What is small everywhere, by the names that configurations have for it
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "hidden_dim"), 40),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 40),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "image_size": 32,
    "patch_size": 8,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "use_cache": False,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
CAUSAL = "AutoModelForCausalLM"
# Model type -> class, and what else makes the model small
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AutoModel", {}),
    "bart": ("AutoModel", {}),
    "beit": ("AutoModel", {}),
    "bert": ("AutoModel", {}),
    "bloom": (CAUSAL, {}),
    "codegen": (CAUSAL, {"rotary_dim": 4}),
    "convnext": (
        "AutoModel",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "patch_size": 4},
    ),
    "deberta-v2": ("AutoModel", {}),
    "dinov2": ("AutoModel", {}),
    "electra": ("AutoModel", {}),
    "falcon": (CAUSAL, {}),
    "gemma": (CAUSAL, {}),
    "gpt_neo": (
        CAUSAL,
        {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    ),
    "gpt_neox": (CAUSAL, {}),
    "llama": (CAUSAL, {}),
    "mamba2": (
        CAUSAL,
        {"num_heads": 8, "n_groups": 2, "chunk_size": 3, "state_size": 8},
    ),
    "mixtral": (CAUSAL, {"num_local_experts": 4}),
    "mpnet": ("AutoModel", {}),
    "opt": (CAUSAL, {"word_embed_proj_dim": 32}),
    "pegasus": (CAUSAL, {}),
    "qwen2_moe": (CAUSAL, {**EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_moe": (CAUSAL, EXPERTS),
    "t5": ("AutoModel", {}),
    "vit": ("AutoModel", {}),
    "xlnet": (CAUSAL, {"d_inner": 40}),
}
QUICK = ["bart", "mixtral"]
ATTENTIONS = ("sdpa", "eager")
EAGER_ONLY = {"bloom", "codegen", "convnext", "deberta-v2", "gpt_neo"}
EAGER_ONLY |= {"mamba2", "mpnet", "xlnet"}
CASES = [
    (name, attention)
    for name in MODELS
    for attention in ATTENTIONS
    if attention == "eager" or name not in EAGER_ONLY
]

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of the library that the models come from
]


def build(model_type: str, attention: str = "sdpa", **more: Any) -> nn.Module:
    """A small model with random weights."""
    declare_torchvision_ops()
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name, own = MODELS[model_type]
    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)}
    sizes = {key: size for key, size in SIZES.items() if key in known}
    config = config_class(**(sizes | own))
    torch.manual_seed(0)
    model = getattr(transformers, name).from_config(
        config, attn_implementation=attention, **more
    )
    spread(model.eval())
    return model.requires_grad_(False)


def others(kwargs: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Inputs of one row more, of three tokens less, and with padding at the end."""
    longer = {key: torch.cat([value, value[:1]]) for key, value in kwargs.items()}
    cases = [longer]
    if "input_ids" in kwargs:
        cases.append({key: value[:, :-3] for key, value in kwargs.items()})
    if "attention_mask" in kwargs:
        mask = kwargs["attention_mask"].clone()
        mask[-1, -3:] = 0
        cases.append({**kwargs, "attention_mask": mask})
    return cases


def check(model: nn.Module, tolerance: float = 1e-3) -> None:
    """Compile, run and compare, on the inferred inputs and on others."""
    _, kwargs, _ = example(model)
    program = torch2mlx.compile(model, kwargs=kwargs)
    check_invariants(program.source)
    module = program.load()
    for case in [kwargs, *others(kwargs)]:
        with torch.no_grad():
            expected = model(**case)
        compare(program, expected, run(program, module, (), case), tolerance)


@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str) -> None:
    check(build(name))


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize(("name", "attention"), todays(CASES))
def test_model(name: str, attention: str) -> None:
    check(build(name, attention))


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
def test_experts(experts: str) -> None:
    check(build("mixtral", experts_implementation=experts))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """MLX is as near to single precision as PyTorch is."""
    model = build("llama")
    _, kwargs, _ = example(model)
    with torch.no_grad():
        exact = model(**kwargs).logits
        rounded = model.to(dtype)(**kwargs).logits
    program = torch2mlx.compile(model, kwargs=kwargs)
    found = run(program, program.load(), (), kwargs)["logits"]
    assert found.dtype == DTYPES[dtype]
    errors = [to_numpy(logits) - exact.numpy() for logits in (found, rounded)]
    ours, theirs = (float(np.sqrt(np.mean(error**2))) for error in errors)
    assert ours <= 1.1 * theirs
