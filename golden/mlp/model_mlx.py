"""MLP in MLX, compiled from `tests.golden.models.MLP`.

Input
    x: float32 [B, 16]
Output
    float32 [B, 4]
"""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)]
        self.dropout = nn.Dropout(0.1)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.layers[1](self.dropout(nn.relu(self.layers[0](x))))
        return self.layers[2](self.dropout(nn.relu(x)))


def load_model(
    path: str | Path = Path(__file__).with_name("model.safetensors"),
) -> MLP:
    """The model with its weights, in evaluation mode."""
    model = MLP()
    model.load_weights(str(path), strict=True)
    model.eval()
    return model


@dataclass
class ModelArgs:
    """What `mlx_lm` makes of config.json: the model has no options."""

    @classmethod
    def from_dict(cls, config: dict) -> "ModelArgs":
        return cls()


class Model(MLP):
    """The model as `mlx_lm.utils.load_model` constructs it."""

    def __init__(self, args: ModelArgs):
        super().__init__()
