"""Sentence embeddings from the generated folder alone: MLX, a tokenizer, and no PyTorch.

    python embed.py FOLDER OUT.npz < sentences.json

`demo.py` runs this file in a process of its own.
"""

from __future__ import annotations

import json
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from tokenizers import Tokenizer

BLOCKED = ("torch", "transformers", "torch2mlx")


class Blocker(MetaPathFinder):
    """Makes some imports fail, as they do where the packages are not installed."""

    def find_spec(self, fullname, path=None, target=None):
        """Refuse the blocked packages, and leave all others to Python."""
        if fullname.partition(".")[0] in BLOCKED:
            raise ImportError(f"{fullname} is blocked in this process")


def check_blocked() -> None:
    """Show that the blocked packages are neither there nor can be imported."""
    for package in BLOCKED:
        try:
            __import__(package)
        except ImportError as error:
            print(f"import {package}: ImportError: {error}")
        else:
            sys.exit(f"import {package}: it is there")


def main() -> None:
    """Embed the sentences twice: as one padded batch, and each alone."""
    folder, out = Path(sys.argv[1]), sys.argv[2]
    sys.meta_path.insert(0, Blocker())
    check_blocked()

    sys.path.insert(0, str(folder))
    from model_mlx import load_model  # type: ignore[import-not-found]

    model = load_model()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()

    sentences = json.load(sys.stdin)
    batch = embed(model, tokenizer, sentences)
    single = [embed(model, tokenizer, [sentence]) for sentence in sentences]
    mx.savez(out, batch=batch, single=mx.concatenate(single))
    print(f"embedded {len(sentences)} sentences, as a padded batch and each alone")


def embed(model: nn.Module, tokenizer: Tokenizer, sentences: list[str]) -> mx.array:
    """Unit vectors (B, 384): the mean over the tokens (B, T) that are no padding."""
    encoded = tokenizer.encode_batch(sentences)
    input_ids = mx.array([e.ids for e in encoded])
    mask = mx.array([e.attention_mask for e in encoded])
    hidden = model(input_ids, mask)["last_hidden_state"]
    mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / mx.linalg.norm(mean, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
