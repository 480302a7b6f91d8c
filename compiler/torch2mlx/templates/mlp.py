"""A multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from torch2mlx.templates.activations import activation as activation_called


class MLP(nn.Module):
    """Linear layers with an activation, and dropout, after each but the last.

    In PyTorch: `nn.Sequential(nn.Linear(...), nn.ReLU(), nn.Dropout(p), nn.Linear(...), ...)`, whose
    linear layers are `layers[0]`, `layers[1]`, ... here.

    Args:
        dims: Number of features of the input, of each hidden layer and of the output.
        activation: "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid" or "identity".
        dropout: Probability that a hidden feature is dropped in training.
        bias: Whether the linear layers have one.

    Raises:
        ValueError: There are fewer than two dims, or no such activation.
    """

    def __init__(
        self,
        dims: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        bias: bool = True,
    ):
        super().__init__()
        if len(dims) < 2:
            raise ValueError(f"dims are those of input and output at least, not {dims}")
        self.activation = activation_called(activation)
        self.dropout = nn.Dropout(dropout)
        self.layers = [
            nn.Linear(inner, outer, bias=bias)
            for inner, outer in itertools.pairwise(dims)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        """[..., dims[0]] to [..., dims[-1]]."""
        for layer in self.layers[:-1]:
            x = self.dropout(self.activation(layer(x)))
        return self.layers[-1](x)
