"""Compile transformers as small as the hand ports were measured with, and print both side by side.

    .venv/bin/python benchmarks/hand_ports.py [NAME ...] [--counter mlx_cost.py] [--half]

For each architecture: lines (as `code_size.py` counts them, without caches and loading), classes, kernels, copies and
foldable kernels of what is generated, with those of the port in mlx-lm, mlx-examples or mlx-embeddings in brackets, and
the largest error against PyTorch in float32.
Kernels are counted by the file that `--counter` names, which has a function `cost(function, *inputs)`.
`--half` adds the errors in bfloat16 and float16 against float32 with the same weights: ours (PyTorch's own).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLX_ENABLE_TF32"] = "0"
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import mlx.core as mx
import mlx.utils
import numpy as np
import torch
from code_size import code_size
from counter import Counter, load_counter
from models import line, randomise
from torch import nn
from torch.utils._pytree import tree_leaves

import torch2mlx
from support import declare_torchvision_ops
from torch2mlx.verify.sides import mlx_arguments

Inputs = dict[str, torch.Tensor]
COLUMNS = ("model", "lines", "classes", "kernels", "copies", "foldable", "float32")
HALVES = (torch.bfloat16, torch.float16)
DRAWS = 8
# Two layers of width 128 with heads of 64, the smallest size that Metal's attention has a kernel for
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 1}
T5: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 128,
    "d_kv": 64,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
CLIP = {
    "text_config": {**SIZES, "eos_token_id": 98, "projection_dim": 64},
    "vision_config": {**SIZES, "image_size": 64, "patch_size": 16},
    "projection_dim": 64,
}
WHISPER: dict[str, Any] = {
    "vocab_size": 99,
    "num_mel_bins": 80,
    "d_model": 128,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
}


@dataclass(frozen=True)
class Case:
    """One architecture, and what its hand port costs.

    Attributes:
        build: Makes the model.
        inputs: The inputs that the port was measured with.
        port: Lines, classes, kernels, copies and foldable kernels of the port. Lines are those of mlx-lm 0.32.2,
            mlx-embeddings 0.1 and mlx-examples (clip's by eye; smollm3's are on top of llama's); the rest was
            counted on the same sizes: mlx-lm d78bf58e2, mlx-examples 7ddca42f4, MLX 0.32.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    port: tuple[int, int, int, int, int]


def tokens(length: int = 16) -> torch.Tensor:
    """Token ids [1, length], none of them special."""
    return torch.randint(5, 90, (1, length))


def text() -> Inputs:
    """Token ids."""
    return {"input_ids": tokens()}


def text_to_text() -> Inputs:
    """Token ids for an encoder and a decoder."""
    return {"input_ids": tokens(), "decoder_input_ids": tokens(8)}


def text_and_image() -> Inputs:
    """Token ids and an image."""
    return {"input_ids": tokens(), "pixel_values": torch.randn(1, 3, 64, 64)}


def audio() -> Inputs:
    """A spectrogram and token ids."""
    return {"input_features": torch.randn(1, 80, 128), "decoder_input_ids": tokens(8)}


def make(kind: str, model: str, **options: Any) -> nn.Module:
    """A model of transformers with random weights, without a cache."""
    import transformers as hf

    config = getattr(hf, f"{kind}Config")(**options)
    result = getattr(hf, f"{kind}{model}")(config).eval()
    for module in result.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "use_cache"):
            config.use_cache = False
    return result


def decoder(kind: str, *port: int, **options: Any) -> Case:
    """A causal language model."""
    build = partial(make, kind, "ForCausalLM", **{**SIZES, **options})
    return Case(build, text, port)  # type: ignore[arg-type]


CASES = {
    "llama": decoder("Llama", 142, 5, 33, 1, 0, **GROUPED),
    "qwen2": decoder("Qwen2", 118, 5, 33, 1, 0, **GROUPED),
    "qwen3": decoder("Qwen3", 125, 5, 37, 1, 0, head_dim=64, **GROUPED),
    "gpt2": Case(
        partial(make, "GPT2", "LMHeadModel", n_embd=128, n_head=2, n_layer=2, **SIZES),
        text,
        (94, 5, 29, 2, 3),
    ),
    "phi": decoder("Phi", 106, 5, 31, 1, 0),
    "phi3": decoder("Phi3", 140, 5, 27, 1, 0, **GROUPED),
    "gemma": decoder("Gemma", 101, 6, 41, 1, 5, head_dim=64, **GROUPED),
    "gemma2": decoder(
        "Gemma2", 133, 6, 72, 3, 11, head_dim=64, query_pre_attn_scalar=64, **GROUPED
    ),
    "mixtral": decoder("Mixtral", 129, 8, 53, 3, 6, num_local_experts=4, **GROUPED),
    "gpt_neox": decoder("GPTNeoX", 111, 5, 29, 1, 0),
    "starcoder2": decoder("Starcoder2", 97, 5, 31, 1, 0, **GROUPED),
    "olmo2": decoder("Olmo2", 128, 5, 37, 1, 0, **GROUPED),
    "stablelm": decoder("StableLm", 143, 5, 33, 1, 0, **GROUPED),
    "cohere": decoder("Cohere", 116, 5, 32, 1, 0, **GROUPED),
    "smollm3": decoder("SmolLM3", 35, 5, 33, 1, 0, **GROUPED),
    "granite": decoder("Granite", 120, 5, 39, 1, 0, **GROUPED),
    "glm4": decoder("Glm4", 119, 5, 35, 1, 0, head_dim=64, **GROUPED),
    "bert": Case(partial(make, "Bert", "Model", **SIZES), text, (84, 4, 34, 4, 4)),
    "modernbert": Case(
        partial(
            make,
            *("ModernBert", "Model"),
            **SIZES,
            local_attention=8,
            global_attn_every_n_layers=2,
        ),
        text,
        (338, 6, 56, 5, 12),
    ),
    "t5": Case(partial(make, "T5", "Model", **T5), text_to_text, (215, 8, 134, 20, 44)),
    "t5_v1_1": Case(
        partial(
            make,
            *("T5", "ForConditionalGeneration"),
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            **T5,
        ),
        text_to_text,
        (215, 9, 141, 20, 44),
    ),
    "clip": Case(
        partial(make, "CLIP", "Model", **CLIP), text_and_image, (250, 9, 101, 10, 6)
    ),
    "whisper": Case(
        partial(make, "Whisper", "Model", **WHISPER), audio, (151, 5, 106, 7, 0)
    ),
}


def measure(case: Case, counter: Counter | None, half: bool) -> Iterator[str]:
    """The columns of one model, as text."""
    torch.manual_seed(0)
    model = case.build()
    randomise(model)
    inputs = case.inputs()
    lines, classes, *counts = case.port
    try:
        program = torch2mlx.compile(model, (), inputs)
    except torch2mlx.Torch2MLXError as error:
        yield from ("", "", "", "", "", str(error).partition("\n")[0])
        return
    generated = program.load()
    own = code_size(program.source)
    yield from (f"{own[0]} ({lines})", f"{own[1]} ({classes})")
    given = mlx_arguments(program, list(inputs.values()))
    costs = counter(generated, *given, timing=False, compiled=False) if counter else {}
    for name, count in zip(("kernels", "copies", "foldable"), counts, strict=True):
        yield f"{costs.get(name, '')} ({count})"
    pairs = zip(results(generated, given), run(model, inputs), strict=True)
    yield f"{max(distance(have, want) for have, want in pairs):.0e}"
    if half:
        yield from (half_errors(case, dtype) for dtype in HALVES)


def half_errors(case: Case, dtype: torch.dtype) -> str:
    """Root of the mean square of the error of each output, the worst: ours (PyTorch's)."""
    torch.manual_seed(0)
    model = case.build()
    randomise(model)
    to_dtype(model, dtype)
    draws = [cast(case.inputs(), dtype) for _ in range(DRAWS)]
    program = torch2mlx.compile(model, (), draws[0])
    generated = program.load()
    ours = [
        results(generated, mlx_arguments(program, list(inputs.values())))
        for inputs in draws
    ]
    own = [run(model, inputs) for inputs in draws]
    to_dtype(model, torch.float32)
    exact = [run(model, cast(inputs, torch.float32)) for inputs in draws]
    return f"{spread(ours, exact):.1e} ({spread(own, exact):.1e})"


def to_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters, as `from_pretrained` does; frequencies of positions stay float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The inputs, those of floats in `dtype`."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


@torch.no_grad()
def run(model: nn.Module, inputs: Inputs) -> list[np.ndarray]:
    """The outputs of PyTorch, in float32."""
    return [output.float().numpy() for output in tree_leaves(model(**inputs))]


def results(generated: Any, given: list[Any]) -> list[np.ndarray]:
    """The outputs of MLX, in float32."""
    arrays: list[Any] = [a for _, a in mlx.utils.tree_flatten(generated(*given))]
    return [np.array(array.astype(mx.float32)) for array in arrays]


def distance(have: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert have.shape == want.shape
    return float(np.abs(have - want).max() / np.abs(want).max())


def spread(found: list[list[np.ndarray]], exact: list[list[np.ndarray]]) -> float:
    """The root of the mean square of the differences over all draws, relative to the values', of the worst output."""
    worst = 0.0
    outputs = zip(zip(*found, strict=True), zip(*exact, strict=True), strict=True)
    for have, want in outputs:
        a, b = np.stack(have), np.stack(want)
        worst = max(worst, float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))))
    return worst


def main() -> None:
    """Measure the models that the command line names, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=", ".join(CASES))
    parser.add_argument(
        "--counter", type=Path, help="a Python file that counts kernels"
    )
    parser.add_argument("--half", action="store_true", help="also in half precision")
    options = parser.parse_args()
    declare_torchvision_ops()
    torch.set_num_threads(1)
    counter = load_counter(options.counter) if options.counter else None
    columns = [*COLUMNS, *(("bfloat16", "float16") if options.half else ())]
    print(line(columns), line(["---"] * len(columns)), sep="\n", flush=True)
    for name in options.names or CASES:
        print(line([name, *measure(CASES[name], counter, options.half)]), flush=True)


if __name__ == "__main__":
    main()
