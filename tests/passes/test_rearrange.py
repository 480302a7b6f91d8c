"""Views and permutes: fewer of them, with the same result for all sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from tests.aten import as_module, check, check_values, evaluate, ops
from torch2mlx.capture import Captured, capture
from torch2mlx.capture.provenance import module_calls
from torch2mlx.passes.rearrange import rearrange

MOVES = {
    "view",
    "_unsafe_view",
    "reshape",
    "flatten",
    "unflatten",
    "unsqueeze",
    "squeeze",
}
MOVES |= {"permute", "transpose", "t", "movedim", "contiguous", "select", "unbind"}
MOVES |= {"chunk", "split", "getitem"}


def rearranged(
    model: Any, args: tuple[Any, ...], *others: tuple[Any, ...], **options: Any
) -> Captured:
    """The graph of `model` after the pass, compared with PyTorch on `args` and `others`."""
    module = as_module(model)
    captured = capture(module, args, **options)
    before = len(captured.graph.nodes)
    rearrange(captured)
    captured.graph.lint()
    check_values(captured)
    assert len(captured.graph.nodes) <= before
    for case in (args, *others):
        with torch.no_grad():
            expected = pytree.tree_leaves(module(*case))
        for want, have in zip(expected, evaluate(captured, *case), strict=True):
            torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)
    return captured


def moves(captured: Captured) -> list[str]:
    """The views, permutes and parts of a graph, in order."""
    names = [
        str(getattr(n.target, "__name__", n.target)).partition(".")[0]
        for n in captured.graph.nodes
    ]
    return [name for name in names if name in MOVES]


class Attention(nn.Module):
    """One call of `nn.MultiheadAttention`."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=batch_first)

    def forward(self, query: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        memory = query if memory is None else memory
        return self.attention(query, memory, memory, need_weights=False)[0]


HEADS = ["reshape", "transpose"]


def test_self_attention() -> None:
    captured = rearranged(
        Attention(True), (torch.randn(2, 5, 12),), (torch.randn(4, 7, 12),)
    )
    assert moves(captured) == [
        "chunk",
        *["getitem"] * 3,
        *HEADS * 3,
        "transpose",
        "reshape",
    ]
    (chunk,) = (
        n for n in captured.graph.nodes if n.target is torch.ops.aten.chunk.default
    )
    assert chunk.args[1:] == (3, -1)


def test_self_attention_with_the_sequence_first() -> None:
    captured = rearranged(
        Attention(False), (torch.randn(5, 2, 12),), (torch.randn(7, 4, 12),)
    )
    heads = ["reshape", "permute"]
    assert moves(captured) == [
        "chunk",
        *["getitem"] * 3,
        *heads * 3,
        "permute",
        "reshape",
    ]


def test_cross_attention() -> None:
    batch = Dim("batch", min=2, max=64)
    shapes = {
        name: {0: batch, 1: Dim(name, min=2, max=64)} for name in ("query", "memory")
    }
    captured = rearranged(
        Attention(True),
        (torch.randn(2, 5, 12), torch.randn(2, 7, 12)),
        (torch.randn(3, 4, 12), torch.randn(3, 6, 12)),
        dynamic=shapes,
    )
    weights = ["getitem"] * 4
    assert moves(captured) == [
        *weights,
        "chunk",
        *["getitem"] * 2,
        *HEADS * 3,
        "transpose",
        "reshape",
    ]


def test_cross_attention_with_the_sequence_first() -> None:
    args = torch.randn(5, 2, 12), torch.randn(7, 2, 12)
    captured = rearranged(Attention(False), args, dynamic=False)
    assert ops(captured)["permute"] == 4
    assert not ops(captured)["transpose"]


def test_encoder_layer() -> None:
    for batch_first in (True, False):
        model = nn.TransformerEncoderLayer(12, 3, 24, batch_first=batch_first)
        captured = rearranged(model, (torch.randn(5, 2, 12),), (torch.randn(4, 3, 12),))
        assert ops(captured)["reshape"] == 4


def test_vision_transformer_block(torchvision_models: Any) -> None:
    block = torchvision_models.vision_transformer.EncoderBlock(
        3, 12, 24, 0.0, 0.0, nn.LayerNorm
    )
    captured = rearranged(block, (torch.randn(2, 5, 12),), (torch.randn(4, 7, 12),))
    assert moves(captured) == [
        "chunk",
        *["getitem"] * 3,
        *HEADS * 3,
        "transpose",
        "reshape",
    ]


def test_bert_layer() -> None:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    config = BertConfig(hidden_size=12, num_attention_heads=3, intermediate_size=24)
    config._attn_implementation = "sdpa"
    captured = rearranged(
        BertLayer(config), (torch.randn(2, 5, 12),), (torch.randn(4, 7, 12),)
    )
    assert moves(captured) == [*["view", "transpose"] * 3, "transpose", "reshape"]


def test_matrix_product_of_flattened_rows() -> None:
    from transformers.pytorch_utils import Conv1D

    captured = rearranged(
        Conv1D(7, 12), (torch.randn(2, 5, 12),), (torch.randn(4, 3, 12),)
    )
    assert moves(captured) == ["t"]


class Rows(nn.Module):
    """Layers on [B T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(12, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        return self.inner(x.reshape(-1, 12)).view(batch, length, 5)


def test_leading_axes_past_several_layers() -> None:
    captured = rearranged(Rows(), (torch.randn(2, 5, 12),), (torch.randn(3, 4, 12),))
    assert not moves(captured)
    # The value that `inner` gets is the model's input now.
    (x,) = (n for n in captured.graph.nodes if n.name == "x")
    assert ("inner", "input") in x.meta["forward_args"]


def test_new_nodes_know_where_they_come_from() -> None:
    captured = rearranged(Attention(True), (torch.randn(2, 5, 12),))
    for node in captured.graph.nodes:
        if node.op == "call_function":
            assert node.meta["stack_trace"]
            assert node.meta["nn_module_stack"]


def last_axis_moves(x: Any) -> Any:
    return nn.functional.linear(x.transpose(1, 2), torch.ones(4, 5)).transpose(1, 2)


def two_users(x: Any) -> Any:
    y = x.permute(1, 0, 2)
    return torch.relu(y).permute(1, 0, 2), y * 2


def windows(x: Any) -> Any:
    y = x.view(-1, 3, 2, 5).transpose(1, 2)
    return nn.functional.linear(y, torch.ones(4, 5)) + 1


def stacked_heads(x: Any) -> Any:
    b, n, _ = x.shape
    q, k, v = x.reshape(b, n, 3, 2, 5).permute(2, 0, 3, 1, 4).unbind(0)
    return q @ k.transpose(-2, -1) @ v


def padded_mask(x: Any) -> Any:
    return x[:, None, None, :] * 2


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (last_axis_moves, (2, 5, 3)),
        (windows, (4, 6, 5)),
        (stacked_heads, (2, 7, 30)),
        (padded_mask, (2, 5)),
    ],
)
def test_left_alone(function: Any, shape: tuple[int, ...]) -> None:
    captured = capture(as_module(function), (torch.randn(shape),))
    before = str(captured.graph)
    assert not rearrange(captured)
    assert str(captured.graph) == before


def test_pair_around_a_pointwise_operator() -> None:
    captured = rearranged(two_users, (torch.randn(2, 3, 5),), (torch.randn(4, 3, 6),))
    assert moves(captured) == ["permute"]


def test_the_same_parts_twice() -> None:
    def function(x: Any) -> Any:
        first, _ = x.chunk(2, -1)
        first = first.relu()
        _, second = x.chunk(2, -1)
        return torch.cat([first, second], -1)

    captured = rearranged(function, (torch.randn(3, 4),), (torch.randn(5, 4),))
    assert moves(captured) == ["chunk", "getitem", "getitem"]


def test_the_shape_of_another_array() -> None:
    def function(x: Any, y: Any) -> Any:
        return x.view_as(y).transpose(0, 1), y.transpose(0, 1).contiguous().view(-1)

    check((rearrange,), function, (torch.randn(6, 4), torch.randn(3, 8)), dynamic=False)


def test_sizes_that_may_not_divide() -> None:
    def function(x: Any) -> Any:
        return x.view(4, -1).transpose(0, 1).reshape(-1, 2).transpose(0, 1)

    check((rearrange,), function, (torch.randn(4, 6),), (torch.randn(4, 10),))


SIZES = (2, 3, 5, 7)


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[str, Any]]]:
    """A shape of different sizes, and views, permutes and parts for it."""
    start = shape = tuple(draw(st.permutations(SIZES)))[: draw(st.integers(1, 4))]
    steps: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(
            st.sampled_from(
                ["permute", "merge", "split", "unsqueeze", "squeeze", "select"]
            )
        )
        axis = draw(st.integers(0, max(len(shape) - 1, 0)))
        if kind == "permute":
            order = draw(st.permutations(range(len(shape))))
            steps.append((kind, order))
            shape = tuple(shape[i] for i in order)
            continue
        if kind == "merge" and len(shape) > 1:
            axis = min(axis, len(shape) - 2)
            shape = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
            steps.append(("view", shape))
        elif kind == "split" and shape:
            size = shape[axis]
            divisor = draw(
                st.sampled_from([d for d in range(1, size + 1) if size % d == 0])
            )
            shape = (*shape[:axis], divisor, size // divisor, *shape[axis + 1 :])
            steps.append(("view", shape))
        elif kind == "unsqueeze" and len(shape) < 7:
            shape = (*shape[:axis], 1, *shape[axis:])
            steps.append((kind, axis))
        elif kind == "squeeze" and shape and shape[axis] == 1:
            shape = (*shape[:axis], *shape[axis + 1 :])
            steps.append((kind, axis))
        elif kind == "select" and len(shape) > 1:
            steps.append(
                (kind, (axis, draw(st.integers(-shape[axis], shape[axis] - 1))))
            )
            shape = (*shape[:axis], *shape[axis + 1 :])
    return start, steps


def follow(x: Any, steps: list[tuple[str, Any]]) -> list[Any]:
    values = [x]
    for kind, argument in steps:
        y = values[-1]
        if kind == "permute":
            values.append(y.permute(argument))
        elif kind == "view":
            values.append(y.reshape(argument))
        elif kind == "select":
            values.append(y.select(*argument))
        else:
            values.append(getattr(y, kind)(argument))
    return values


@settings(max_examples=60, deadline=None)
@given(chains(), st.integers(0, 6))
def test_random_chains(chain: Any, also: int) -> None:
    shape, steps = chain

    def function(x: Any) -> Any:
        values = follow(x, steps)
        return values[-1] * 2, values[min(also, len(values) - 1)] * 3

    x = torch.arange(math.prod(shape)).reshape(shape)
    before = len(capture(as_module(function), (x,), dynamic=False).graph.nodes)
    captured = check((rearrange,), function, (x,), dynamic=False)
    assert len(captured.graph.nodes) <= before


@settings(max_examples=25, deadline=None)
@given(st.permutations([0, 1, 2]), st.permutations([0, 1, 2]))
def test_random_permutes_around_a_layer(order: list[int], back: list[int]) -> None:
    def function(x: Any) -> Any:
        y = x.permute(order)
        return nn.functional.linear(y, torch.ones(4, y.shape[-1])).relu().permute(back)

    rearranged(
        function, (torch.randn(2, 3, 5),), (torch.randn(2, 3, 5),), dynamic=False
    )


class Flat(nn.Module):
    """A linear layer over all leading axes at once, as GPT-2 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Any) -> Any:
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(x.shape)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = Flat()

    def forward(self, x: Any) -> Any:
        x = torch.tanh(x).transpose(1, 2).contiguous()
        return self.flat(x.reshape(*x.shape[:2], 6))


def test_what_a_caller_rearranges_stays_with_the_caller() -> None:
    captured = rearranged(Heads(), (torch.randn(2, 3, 4, 2),))
    moves = [n for n in captured.graph.nodes if n.name.startswith(("transp", "resh"))]
    assert moves
    assert {module_calls(node)[-1].path for node in moves} == {""}
