"""The models whose generated folders are committed under golden/."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tests.support import declare_torchvision_ops

Case = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


class MLP(nn.Module):
    """A multilayer perceptron, as a newcomer writes it."""

    def __init__(self, sizes: tuple[int, ...] = (16, 32, 32, 4)):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = self.dropout(torch.relu(layer(x)))
        return self.layers[-1](x)


def mlp() -> Case:
    return MLP(), (torch.randn(2, 16),), {}


def resnet18() -> Case:
    return _torchvision("resnet18", 64)


def vit_b_32() -> Case:
    return _torchvision("vit_b_32", 224)


def bert() -> Case:
    """Two layers, as small as its tests in transformers have it."""
    declare_torchvision_ops()
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
    )
    tokens = torch.randint(0, 99, (2, 16))
    mask = torch.ones(2, 16, dtype=torch.int64)
    return BertModel(config), (), {"input_ids": tokens, "attention_mask": mask}


def llama() -> Case:
    """Grouped queries, and no padding."""
    declare_torchvision_ops()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=37,
        max_position_embeddings=64,
        use_cache=False,
    )
    tokens = torch.randint(0, 99, (2, 16))
    return LlamaForCausalLM(config), (), {"input_ids": tokens}


def _torchvision(name: str, side: int) -> Case:
    declare_torchvision_ops()
    import torchvision.models

    model = torchvision.models.get_model(name, weights=None)
    return model, (torch.randn(2, 3, side, side),), {}


MODELS: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "resnet18": resnet18,
    "vit_b_32": vit_b_32,
    "bert": bert,
    "llama": llama,
}
