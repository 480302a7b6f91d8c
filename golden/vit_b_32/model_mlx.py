"""VisionTransformer in MLX,
compiled from `torchvision.models.vision_transformer.VisionTransformer`.

Input
    x: float32 [B, 224, 224, 3], channels last (PyTorch: [B, 3, 224, 224])
Output
    float32 [B, 1000]
"""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn


class MultiheadAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_proj = nn.Linear(768, 2304)
        self.out_proj = nn.Linear(768, 768)

    def __call__(self, query: mx.array) -> mx.array:
        q, k, v = mx.split(self.in_proj(query), 3, axis=-1)
        q = q.reshape(-1, 50, 12, 64).swapaxes(1, 2)
        k = k.reshape(-1, 50, 12, 64).swapaxes(1, 2)
        v = v.reshape(-1, 50, 12, 64).swapaxes(1, 2)
        attn_output = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125)
        return self.out_proj(attn_output.swapaxes(1, 2).reshape(-1, 50, 768))


class EncoderBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(768, eps=1e-6)
        self.self_attention = MultiheadAttention()
        self.ln_2 = nn.LayerNorm(768, eps=1e-6)
        self.mlp = [
            nn.Linear(768, 3072),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(3072, 768),
        ]

    def __call__(self, input: mx.array) -> mx.array:
        x = self.self_attention(self.ln_1(input)) + input
        y = self.ln_2(x)
        for layer in self.mlp:
            y = layer(y)
        return x + y


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embedding = mx.zeros((1, 50, 768))
        self.layers = {f"encoder_layer_{i}": EncoderBlock() for i in range(12)}
        self.ln = nn.LayerNorm(768, eps=1e-6)

    def __call__(self, input: mx.array) -> mx.array:
        input = input + self.pos_embedding
        for layer in self.layers.values():
            input = layer(input)
        return self.ln(input)


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 768, 32, stride=32)
        self.class_token = mx.zeros((1, 1, 768))
        self.encoder = Encoder()
        self.heads = {"head": nn.Linear(768, 1000)}

    def __call__(self, x: mx.array) -> mx.array:
        if x.shape[1:3] != (224, 224):
            raise ValueError(f"x must be [B, 224, 224, 3], not {list(x.shape)}")
        B = x.shape[0]
        x = self.conv_proj(x).flatten(1, 2)
        batch_class_token = mx.broadcast_to(self.class_token, (B, 1, 768))
        x = mx.concatenate([batch_class_token, x], axis=1)
        return self.heads["head"](self.encoder(x)[:, 0])

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Weights of PyTorch as this module has them; its own are left as they are."""
        if "encoder.layers.encoder_layer_0.self_attention.in_proj_bias" not in weights:
            return weights
        sanitized = {}
        for key, value in weights.items():
            if key == "conv_proj.weight":
                value = value.transpose(0, 2, 3, 1)
            key = key.replace("in_proj_weight", "in_proj.weight").replace(
                "in_proj_bias", "in_proj.bias"
            )
            sanitized[key] = value
        return sanitized


def load_model(
    path: str | Path = Path(__file__).with_name("model.safetensors"),
) -> VisionTransformer:
    """The model with its weights, in evaluation mode."""
    model = VisionTransformer()
    weights = model.sanitize(mx.load(str(path)))
    model.load_weights(list(weights.items()), strict=True)
    model.eval()
    return model


@dataclass
class ModelArgs:
    """What `mlx_lm` makes of config.json: the model has no options."""

    @classmethod
    def from_dict(cls, config: dict) -> "ModelArgs":
        return cls()


class Model(VisionTransformer):
    """The model as `mlx_lm.utils.load_model` constructs it."""

    def __init__(self, args: ModelArgs):
        super().__init__()
