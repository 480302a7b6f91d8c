"""A Transformer's encoder layer."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from torch2mlx.templates.activations import activation as activation_called


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    In PyTorch: `nn.MultiheadAttention(dims, num_heads, bias=bias, batch_first=True)`, whose
    `in_proj_weight` and `in_proj_bias` are `in_proj.weight` and `in_proj.bias` here.

    Args:
        dims: Number of features D.
        num_heads: Number of heads; divides `dims`.
        bias: Whether the projections have one.

    Raises:
        ValueError: `num_heads` does not divide `dims`.
    """

    def __init__(self, dims: int, num_heads: int, bias: bool = True):
        super().__init__()
        if dims % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {dims} features")
        self.num_heads = num_heads
        self.scale = (dims // num_heads) ** -0.5
        self.in_proj = nn.Linear(dims, 3 * dims, bias=bias)
        self.out_proj = nn.Linear(dims, dims, bias=bias)

    def __call__(self, x: mx.array, mask: mx.array | str | None = None) -> mx.array:
        """[B, L, D] to [B, L, D].

        Args:
            x: The sequence.
            mask: True where a query (last axis but one) may look at a key (last axis), or what is added
                to the scores, as an array that broadcasts to [B, num_heads, L, L]; "causal"; or None.
        """
        B, L, D = x.shape
        qkv = self.in_proj(x).reshape(B, L, 3, self.num_heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        return self.out_proj(y.swapaxes(1, 2).reshape(B, L, D))


class TransformerBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each with a residual and a LayerNorm.

    In PyTorch: `nn.TransformerEncoderLayer(dims, num_heads, mlp_dims, dropout, activation, eps,
    batch_first=True, norm_first=norm_first, bias=bias)`.

    Args:
        dims: Number of features D.
        num_heads: Number of heads; divides `dims`.
        mlp_dims: Number of hidden features of the perceptron; None takes 4 * dims.
        norm_first: True normalises what goes into attention and perceptron (pre-norm), False what
            comes out of each residual (post-norm).
        activation: That of the perceptron, by its name in `MLP`.
        dropout: Probability that a feature is dropped in training: of the perceptron's hidden ones,
            and of what is added to the residual. Attention weights are not dropped.
        eps: Of the LayerNorms.
        bias: Whether projections and LayerNorms have one.

    Raises:
        ValueError: `num_heads` does not divide `dims`, or there is no such activation.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        norm_first: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        eps: float = 1e-5,
        bias: bool = True,
    ):
        super().__init__()
        hidden = 4 * dims if mlp_dims is None else mlp_dims
        self.norm_first = norm_first
        self.activation = activation_called(activation)
        self.dropout = nn.Dropout(dropout)
        self.self_attn = SelfAttention(dims, num_heads, bias)
        self.linear1 = nn.Linear(dims, hidden, bias=bias)
        self.linear2 = nn.Linear(hidden, dims, bias=bias)
        self.norm1 = nn.LayerNorm(dims, eps=eps, bias=bias)
        self.norm2 = nn.LayerNorm(dims, eps=eps, bias=bias)

    def __call__(self, x: mx.array, mask: mx.array | str | None = None) -> mx.array:
        """[B, L, D] to [B, L, D]; `mask` as in `SelfAttention`."""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.norm1(x), mask))
            return x + self._mlp(self.norm2(x))
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self._mlp(x))

    def _mlp(self, x: mx.array) -> mx.array:
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.dropout(self.linear2(hidden))
