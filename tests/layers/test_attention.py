"""`nn.MultiheadAttention` and transformers against PyTorch: masks, weights, and where they are padded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.program import check

PADDED = torch.arange(7) >= torch.tensor([[4], [7]])
BIAS = torch.where(PADDED, -2.0, 0.5)
CAUSAL = torch.ones(5, 7, dtype=torch.bool).triu(1)
HEADS = torch.randn(4, 5, 7)


class Attention(nn.Module):
    """Attention of `key` whose arguments without a value are further inputs."""

    def __init__(self, constructor: dict[str, Any], **call: Any):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **constructor)
        self.call = call

    def forward(self, query: torch.Tensor, key: torch.Tensor, *masks: Any) -> Any:
        names = [name for name, value in self.call.items() if value is None]
        given = self.call | dict(zip(names, masks, strict=True))
        result = self.attention(query, key, key, **given)
        return result if given["need_weights"] else result[0]


@pytest.mark.parametrize(
    ("constructor", "call"),
    [
        ({}, {"need_weights": False}),
        ({}, {"need_weights": True}),
        (
            {"bias": False, "add_bias_kv": True, "add_zero_attn": True},
            {"need_weights": True, "average_attn_weights": False},
        ),
    ],
    ids=["", "weights", "zero"],
)
@pytest.mark.parametrize(
    "masks",
    [
        {"key_padding_mask": PADDED},
        {"key_padding_mask": BIAS},
        {"attn_mask": CAUSAL},
        {"attn_mask": HEADS},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDED},
    ],
    ids=["padding", "bias", "causal", "heads", "both"],
)
def test_masks(
    constructor: dict[str, Any], call: dict[str, Any], masks: dict[str, Any]
) -> None:
    model = Attention(constructor, **call, **dict.fromkeys(masks))
    args = (torch.randn(2, 5, 8), torch.randn(2, 7, 8), *masks.values())
    check(model, args)


def test_one_attention_for_self_and_cross() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x = self.attention(x, x, x, need_weights=False)[0]
            x = self.attention(x, y, y, need_weights=False)[0]
            return self.attention(x, y, y + 1, need_weights=False)[0]

    check(Both(), (torch.randn(5, 2, 8), torch.randn(7, 2, 8)))


def test_projections_of_another_width_are_layers() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)

        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return self.attention(q, k, v, need_weights=False)[0]

    args = (torch.randn(5, 2, 8), torch.randn(7, 2, 6), torch.randn(7, 2, 4))
    source = check(Wide(), args).source
    for name, width in (("q", 8), ("k", 6), ("v", 4)):
        assert f"self.{name}_proj = nn.Linear({width}, 8)" in source


def test_cross_attention_is_two_linear_layers() -> None:
    model = Attention({}, need_weights=False)
    source = check(model, (torch.randn(2, 5, 8), torch.randn(2, 7, 8))).source
    assert "self.q_proj = nn.Linear(8, 8)" in source
    assert "self.kv_proj = nn.Linear(8, 16)" in source
    assert source.count(".reshape(B, T2, 2, 4).swapaxes(1, 2)") == 2


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_with_padding(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, batch_first=True, norm_first=norm_first
    )
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    check(Kept(model), (torch.randn(2, 7, 8), PADDED))


class Kept(nn.Module):
    """An encoder without what it gives at padding, where PyTorch's fast path has zeros."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        y = self.encoder(x, src_key_padding_mask=padded)
        return torch.where(padded[..., None], 0.0, y)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_encoder_on_the_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 7, 8)
    with torch.no_grad():
        zeros = model(x, src_key_padding_mask=PADDED)[PADDED]
    assert not zeros.any()
    check(Kept(model), (x, PADDED))


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_with_masks(norm_first: bool) -> None:
    layer = nn.TransformerDecoderLayer(
        8, 2, 16, batch_first=True, norm_first=norm_first
    )
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    masks = {"tgt_mask": causal, "memory_key_padding_mask": PADDED[:, 2:]}
    args = (torch.randn(2, 7, 8), torch.randn(2, 5, 8))
    check(nn.TransformerDecoder(layer, 2, nn.LayerNorm(8)), args, kwargs=masks)
