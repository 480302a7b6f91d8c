"""Small models to verify, and faults to plant in what they become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support import declare_torchvision_ops
from torch2mlx.lower.facade import nn as mlx_nn
from torch2mlx.lower.registry import LAYERS, OPS, Lowering

aten = torch.ops.aten


class Block(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x):
        y = self.up(self.norm(x))
        y = nn.functional.gelu(y)
        return x + self.down(y)


class MLP(nn.Module):
    """Two residual blocks and a head."""

    def __init__(self, zero_head: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(Block(8) for _ in range(2))
        self.head = nn.Linear(8, 3)
        if zero_head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.conv = nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.conv(self.pool(self.stem(x)))
        return self.head(torch.relu(x).mean((2, 3)))


class Positions(nn.Module):
    """Takes no more than eight positions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 4)

    def forward(self, x):
        return x + self.embed(torch.arange(x.shape[1]))


class Counted(Positions):
    """Its positions are counted, so that only PyTorch's range check says how many there may be."""

    def forward(self, x):
        counts = (x[0, :, 0] == x[0, :, 0]).long().cumsum(0)
        return x + self.embed(counts - 1)


def build(cls: type[nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(0)
    return cls(*args).eval()


def bert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A BERT of two narrow layers, and its inputs."""
    declare_torchvision_ops()  # transformers imports torchvision
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.5,  # values at which activations are not nearly linear
    )
    tokens = torch.randint(0, 50, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.long)
    return BertModel(config).eval(), {"input_ids": tokens, "attention_mask": mask}


def plant_gelu(monkeypatch: pytest.MonkeyPatch, name: str = "gelu_fast_approx") -> None:
    """Lower GELU to another variant."""
    variant = getattr(mlx_nn, name)
    wrong = Lowering(lambda x, approximate: variant(x), ("x", "approximate"))
    monkeypatch.setitem(OPS, aten.gelu.default, wrong)


def plant_eps(monkeypatch: pytest.MonkeyPatch, path_width: int) -> None:
    """Let layer norms over `path_width` numbers have another epsilon."""
    entry = LAYERS[aten.layer_norm.default]

    def layer_norm(x, normalized_shape, weight, bias, eps, cudnn_enable):
        if tuple(normalized_shape) == (path_width,):
            eps = 0.1
        return entry.function(x, normalized_shape, weight, bias, eps, cudnn_enable)

    monkeypatch.setitem(
        LAYERS, aten.layer_norm.default, Lowering(layer_norm, entry.parameters)
    )


def fingerprint(model: nn.Module) -> Any:
    """All that a verification must leave alone: values, modes, hooks, random state."""
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    modes = [module.training for module in model.modules()]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in model.modules()
    ]
    bits = {
        key: tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor
        for key, tensor in state.items()
    }
    return bits, identities, modes, hooks, torch.random.get_rng_state()


def assert_unchanged(model: nn.Module, before: Any) -> None:
    after = fingerprint(model)
    assert after[0].keys() == before[0].keys()
    assert all(torch.equal(after[0][key], before[0][key]) for key in before[0])
    assert after[1:4] == before[1:4]
    assert torch.equal(after[4], before[4])
