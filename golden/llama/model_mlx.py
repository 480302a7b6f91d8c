"""LlamaForCausalLM in MLX,
compiled from `transformers.models.llama.modeling_llama.LlamaForCausalLM`.

Input
    input_ids: int64 [B, T]
Output
    logits: float32 [B, T, 99]
"""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn


@dataclass
class ModelArgs:
    vocab_size: int = 99
    hidden_size: int = 32
    intermediate_size: int = 37
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    rms_norm_eps: float = 1e-6
    head_dim: int = 8
    rope_theta: float = 10000.0

    @classmethod
    def from_dict(cls, config: dict) -> "ModelArgs":
        """The numbers of config.json."""
        known = {field.name for field in fields(cls)}
        return cls(**{k: v for k, v in config.items() if k in known})


@partial(mx.compile, shapeless=True)
def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`x` times the SiLU of its gate."""
    return nn.silu(gate) * x


class LlamaAttention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        head_dim = args.head_dim
        hidden_size = args.hidden_size
        num_attention_heads = args.num_attention_heads
        num_key_value_heads = args.num_key_value_heads
        self.head_dim = head_dim
        self.scaling = head_dim**-0.5
        self.q_proj = nn.Linear(hidden_size, num_attention_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=False)
        self.rope = nn.RoPE(head_dim, base=args.rope_theta)
        self.o_proj = nn.Linear(num_attention_heads * head_dim, hidden_size, bias=False)

    def __call__(self, hidden_states: mx.array) -> mx.array:
        B, T, _ = hidden_states.shape
        query_states = self.q_proj(hidden_states).reshape(B, T, -1, self.head_dim)
        key_states = self.k_proj(hidden_states).reshape(B, T, -1, self.head_dim)
        value_states = self.v_proj(hidden_states).reshape(B, T, -1, self.head_dim)
        value_states = value_states.swapaxes(1, 2)
        query_states = self.rope(query_states.swapaxes(1, 2))
        key_states = self.rope(key_states.swapaxes(1, 2))
        attn_output = mx.fast.scaled_dot_product_attention(
            query_states, key_states, value_states, scale=self.scaling, mask="causal"
        )
        return self.o_proj(attn_output.swapaxes(1, 2).reshape(B, T, -1))


class LlamaMLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.gate_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.up_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.down_proj = nn.Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class LlamaDecoderLayer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.self_attn = LlamaAttention(args)
        self.post_attention_layernorm = nn.RMSNorm(
            args.hidden_size, eps=args.rms_norm_eps
        )
        self.mlp = LlamaMLP(args)

    def __call__(self, hidden_states: mx.array) -> mx.array:
        attn_output = self.self_attn(self.input_layernorm(hidden_states))
        hidden_states = hidden_states + attn_output
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class LlamaModel(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [LlamaDecoderLayer(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, input_ids: mx.array) -> mx.array:
        hidden_states = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return self.norm(hidden_states)


class LlamaForCausalLM(nn.Module):
    def __init__(self, args: ModelArgs = ModelArgs()):
        super().__init__()
        self.model = LlamaModel(args)
        self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, input_ids: mx.array) -> dict[str, mx.array]:
        return {"logits": self.lm_head(self.model(input_ids))}


def load_model(
    path: str | Path = Path(__file__).with_name("model.safetensors"),
) -> LlamaForCausalLM:
    """The model with its weights, in evaluation mode."""
    model = LlamaForCausalLM()
    model.load_weights(str(path), strict=True)
    model.eval()
    return model


Model = LlamaForCausalLM  # the name that `mlx_lm.utils.load_model` looks for
