"""BertModel in MLX, compiled from `transformers.models.bert.modeling_bert.BertModel`.

Inputs
    input_ids: int64 [B, T]
    attention_mask: int64 [B, T]
Outputs
    last_hidden_state: float32 [B, T, 32]
    pooler_output: float32 [B, 32]
"""

from dataclasses import dataclass, fields
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn


@dataclass
class ModelArgs:
    vocab_size: int = 99
    hidden_size: int = 32
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 37
    hidden_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, config: dict) -> "ModelArgs":
        """The numbers of config.json."""
        known = {field.name for field in fields(cls)}
        return cls(**{k: v for k, v in config.items() if k in known})


def masked_attention(
    q: mx.array, k: mx.array, v: mx.array, mask: mx.array, scale: float
) -> mx.array:
    """Attention [B, H, L, D] with a boolean mask; 0 where it allows nothing."""
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return mx.where(mx.any(mask, axis=-1, keepdims=True), y, mx.zeros((), y.dtype))


class BertEmbeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        hidden_size = args.hidden_size
        self.word_embeddings = nn.Embedding(args.vocab_size, hidden_size)
        self.token_type_embeddings = nn.Embedding(args.type_vocab_size, hidden_size)
        self.position_embeddings = nn.Embedding(
            args.max_position_embeddings, hidden_size
        )
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=args.layer_norm_eps)
        self.dropout = nn.Dropout(args.hidden_dropout_prob)

    def __call__(self, input_ids: mx.array) -> mx.array:
        B, T = input_ids.shape
        token_type_ids = mx.zeros((B, T), dtype=mx.int64)
        token_type_embeddings = self.token_type_embeddings(token_type_ids)
        embeddings = self.word_embeddings(input_ids) + token_type_embeddings
        embeddings = embeddings + self.position_embeddings(mx.arange(T))
        return self.dropout(self.LayerNorm(embeddings))


class BertSelfAttention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attention_head_size = args.hidden_size // args.num_attention_heads
        self.scaling = self.attention_head_size**-0.5
        self.query = nn.Linear(args.hidden_size, args.hidden_size)
        self.key = nn.Linear(args.hidden_size, args.hidden_size)
        self.value = nn.Linear(args.hidden_size, args.hidden_size)

    def __call__(self, hidden_states: mx.array, attention_mask: mx.array) -> mx.array:
        B, T, _ = hidden_states.shape
        query_layer = self.query(hidden_states)
        query_layer = query_layer.reshape(B, T, -1, self.attention_head_size)
        query_layer = query_layer.swapaxes(1, 2)
        key_layer = self.key(hidden_states)
        key_layer = key_layer.reshape(B, T, -1, self.attention_head_size)
        key_layer = key_layer.swapaxes(1, 2)
        value_layer = self.value(hidden_states)
        value_layer = value_layer.reshape(B, T, -1, self.attention_head_size)
        value_layer = value_layer.swapaxes(1, 2)
        attn_output = masked_attention(
            query_layer, key_layer, value_layer, attention_mask, self.scaling
        )
        return attn_output.swapaxes(1, 2).reshape(B, T, -1)


class BertSelfOutput(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.hidden_size)
        self.dropout = nn.Dropout(args.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, eps=args.layer_norm_eps)

    def __call__(self, hidden_states: mx.array, input_tensor: mx.array) -> mx.array:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + input_tensor)


class BertAttention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self = BertSelfAttention(args)
        self.output = BertSelfOutput(args)

    def __call__(self, hidden_states: mx.array, attention_mask: mx.array) -> mx.array:
        return self.output(self.self(hidden_states, attention_mask), hidden_states)


class BertIntermediate(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.intermediate_size)

    def __call__(self, hidden_states: mx.array) -> mx.array:
        return nn.gelu(self.dense(hidden_states))


class BertOutput(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.dense = nn.Linear(args.intermediate_size, args.hidden_size)
        self.dropout = nn.Dropout(args.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, eps=args.layer_norm_eps)

    def __call__(self, hidden_states: mx.array, input_tensor: mx.array) -> mx.array:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + input_tensor)


class BertLayer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attention = BertAttention(args)
        self.intermediate = BertIntermediate(args)
        self.output = BertOutput(args)

    def __call__(self, hidden_states: mx.array, attention_mask: mx.array) -> mx.array:
        self_attention_output = self.attention(hidden_states, attention_mask)
        intermediate_output = self.intermediate(self_attention_output)
        return self.output(intermediate_output, self_attention_output)


class BertEncoder(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.layer = [BertLayer(args) for _ in range(args.num_hidden_layers)]

    def __call__(self, hidden_states: mx.array, attention_mask: mx.array) -> mx.array:
        for layer in self.layer:
            hidden_states = layer(hidden_states, attention_mask)
        return hidden_states


class BertPooler(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.dense = nn.Linear(args.hidden_size, args.hidden_size)

    def __call__(self, hidden_states: mx.array) -> mx.array:
        return mx.tanh(self.dense(hidden_states[:, 0]))


class BertModel(nn.Module):
    def __init__(self, args: ModelArgs = ModelArgs()):
        super().__init__()
        self.max_position_embeddings = args.max_position_embeddings
        self.embeddings = BertEmbeddings(args)
        self.encoder = BertEncoder(args)
        self.pooler = BertPooler(args)

    def __call__(
        self, input_ids: mx.array, attention_mask: mx.array
    ) -> dict[str, mx.array]:
        if input_ids.shape[1] > self.max_position_embeddings:
            raise ValueError(f"input_ids must have T <= {self.max_position_embeddings}")
        attention_mask = attention_mask.astype(mx.bool_)[:, None, None]
        encoder_outputs = self.encoder(self.embeddings(input_ids), attention_mask)
        return {
            "last_hidden_state": encoder_outputs,
            "pooler_output": self.pooler(encoder_outputs),
        }


def load_model(
    path: str | Path = Path(__file__).with_name("model.safetensors"),
) -> BertModel:
    """The model with its weights, in evaluation mode."""
    model = BertModel()
    model.load_weights(str(path), strict=True)
    model.eval()
    return model


Model = BertModel  # the name that `mlx_lm.utils.load_model` looks for
