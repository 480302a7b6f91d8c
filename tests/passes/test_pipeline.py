"""All passes in order, on whole models: what is left, and the numbers through MLX."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.aten import check, ops
from tests.lowering import run_lowered
from torch2mlx.capture import Captured, capture
from torch2mlx.passes import PIPELINE, run
from torch2mlx.passes.rewrite import arguments

# transformers imports torchvision, which must be importable first.
pytestmark = pytest.mark.usefixtures("torchvision_models")

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}


def bert(**options: Any) -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SMALL, **options)).eval()


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(**SMALL, num_key_value_heads=2, use_cache=False)
    ).eval()


def tokens(batch: int = 2, length: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, length // 2 :] = 0
    return torch.randint(0, 99, (batch, length)), mask


def attentions(captured: Captured) -> list[dict[str, Any]]:
    name = "scaled_dot_product_attention"
    return [arguments(n) for n in captured.graph.nodes if n.name.startswith(name)]


def test_bert() -> None:
    captured = check(PIPELINE, bert(), tokens(), tokens(3, 9))
    masks = {call["attn_mask"] for call in attentions(captured)}
    assert len(masks) == 1
    (mask,) = masks
    assert tuple(captured.size(s) for s in mask.meta["val"].shape) == (2, 1, 1, 16)
    while mask.target is torch.ops.aten.unsqueeze.default:
        mask = mask.args[0]
    assert mask.target is torch.ops.aten.to.dtype
    assert mask.args[0].name == "attention_mask"
    assert not {"index", "gather", "expand", "ge", "new_ones", "__and__"} & set(
        ops(captured)
    )
    keys = set(captured.weights.values())
    assert not {"embeddings.position_ids", "embeddings.token_type_ids"} & keys
    decided = {decision.what for decision in captured.decisions}
    assert decided - {"attention_mask"} == {
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    }
    assert "`input_ids.shape[1]` is at most 512" in captured.notes[0]


def test_bert_in_mlx() -> None:
    run_lowered(bert(), tokens(), tokens(3, 9))


def test_bert_with_attention_written_out() -> None:
    model = bert(attn_implementation="eager")
    captured = check(PIPELINE, model, tokens(), tokens(3, 9), tolerance=1e-5)
    assert ops(captured)["expand"] == 0


def test_causal_language_model() -> None:
    ids, mask = tokens()
    captured = check(PIPELINE, llama(), (ids,), tokens(3, 9)[:1])
    assert [call["is_causal"] for call in attentions(captured)] == [True, True]
    assert [call["attn_mask"] for call in attentions(captured)] == [None, None]
    assert not {"cumsum", "diff", "eq"} & set(ops(captured))
    captured = check(PIPELINE, llama(), (ids, mask), tokens(3, 9))
    (mask,) = {call["attn_mask"] for call in attentions(captured)}
    assert "and" in mask.name


def test_resnet(torchvision_models: Any) -> None:
    model = torchvision_models.resnet18().eval()
    captured = check(PIPELINE, model, (torch.randn(2, 3, 64, 64),))
    assert not any(name.endswith("_") for name in ops(captured))
    assert ops(captured) == {
        "conv2d": 20,
        "batch_norm": 20,
        "relu": 17,
        "max_pool2d": 1,
        "add": 8,
        "adaptive_avg_pool2d": 1,
        "flatten": 1,
        "linear": 1,
    }


class Written(nn.Module):
    """Writes to views, and has constants and unused weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.unused = nn.Linear(3, 3)
        self.register_buffer("positions", torch.arange(16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).relu_()
        y[:, 0] += self.positions[: x.shape[0]]
        y[:, 1:3].mul_(torch.tensor([2.0, 3.0]).exp())
        return y


def test_in_mlx() -> None:
    run_lowered(Written(), (torch.randn(3, 4),), (torch.randn(5, 4),))


def test_unused_weights_go_and_inputs_stay() -> None:
    captured = check(PIPELINE, Written(), (torch.randn(3, 4),))
    assert not any(key.startswith("unused") for key in captured.weights.values())
    captured = check(PIPELINE, lambda x, y: x + 1, (torch.randn(3), torch.randn(3)))
    assert sum(n.op == "placeholder" for n in captured.graph.nodes) == 2


def test_passes_can_be_left_out() -> None:
    captured = capture(Written().eval(), (torch.randn(3, 4),))
    decisions = run(captured, disable=("formulas", "fold_constants"))
    assert not decisions
    assert "positions" in captured.weights.values()


def test_running_twice_changes_nothing() -> None:
    captured = check(PIPELINE, bert(), tokens())
    before = str(captured.graph)
    run(captured)
    assert str(captured.graph) == before
