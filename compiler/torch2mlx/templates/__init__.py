"""Hand-written blocks to build MLX models of: they need only `mlx`.

Images are [B, H, W, C], sequences [B, L, D]. Each block names its PyTorch equivalent; its parameters
have the same names and, but for convolutions ([O, kH, kW, I]), the same shapes.
"""

from torch2mlx.templates.convolution import ConvBlock, ConvStack
from torch2mlx.templates.mlp import MLP
from torch2mlx.templates.transformer import SelfAttention, TransformerBlock

__all__ = ["MLP", "ConvBlock", "ConvStack", "SelfAttention", "TransformerBlock"]
