"""Reshaping, permuting, joining and repeating against PyTorch, at two batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch

from tests.lowering import lowered, run_lowered
from tests.ops.cases import case, ints

X = torch.randn(3, 4, 6)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("view", lambda x: x.view(x.shape[0], 2, -1), X),
        case("reshape", lambda x: x.reshape(-1, 6), X),
        case("reshape heads", lambda x: x.reshape(x.shape[0], x.shape[1], 2, 3), X),
        case("flatten", lambda x: x.flatten(1), X),
        case("flatten middle", lambda x: x[None].flatten(1, 2), X),
        case("unflatten", lambda x: x.unflatten(-1, (2, 3)), X),
        case("permute", lambda x: x.permute(2, 0, 1), X),
        case("permute back", lambda x: x.permute(-1, 0, 1), X),
        case("transpose", lambda x: x.transpose(-2, -1), X),
        case("T", lambda x: x[0].T, X),
        case("mT", lambda x: x.mT, X),
        case("movedim", lambda x: x.movedim(0, -1), X),
        case("movedims", lambda x: x.movedim((0, 1), (1, 2)), X),
        case("unsqueeze", lambda x: x.unsqueeze(1).unsqueeze(-1), X),
        case("squeeze", lambda x: x[:, :1].squeeze(1), X),
        case("squeeze of no one", lambda x: x.squeeze(1), X),
        case("squeeze all", lambda x: x[:, :1, None].squeeze(), X),
        case("expand", lambda x: x[:, :1].expand(-1, 5, -1), X),
        case("expand new", lambda x: x.expand(2, *x.shape), X),
        case("expand_as", lambda x: x[:, :1].expand_as(x), X),
        case("sum_to_size", lambda x: x.sum_to_size(1, 6), X),
        case("tile", lambda x: x.tile(2), X),
        case("repeat", lambda x: x.repeat(2, 1, 1, 3), X),
        case("repeat nothing", lambda x: x.repeat(1, 0, 1), X),
        case("repeat_interleave", lambda x: x.repeat_interleave(2, 1), X),
        case("repeat_interleave of all", lambda x: x.repeat_interleave(2), X),
        case("roll", lambda x: x.roll((1, -2), (0, 2)), X),
        case("roll of all", lambda x: x.roll(2), X),
        case("flip", lambda x: x.flip(0, 2), X),
        case("unfold", lambda x: x.unfold(2, 3, 2), X),
        case("unfold in the middle", lambda x: x.unfold(1, 2, 1), X),
        case("pixel_shuffle", lambda x: torch.pixel_shuffle(x[:, :, None], 2), X),
        case("pixel_unshuffle", lambda x: torch.pixel_unshuffle(x[:, None], 2), X),
        case("channel_shuffle", lambda x: torch.channel_shuffle(x[..., None], 2), X),
        case("einsum", lambda x: torch.einsum("b i j, b k j -> b i k", x, x), X),
        case("meshgrid", lambda x: torch.meshgrid(x[0, 0], x[0, 1], indexing="xy"), X),
        case(
            "meshgrid ij",
            lambda x: torch.meshgrid(x[0, 0], x[0, 1, :2], indexing="ij"),
            X,
        ),
        case("atleast", lambda x: torch.atleast_3d(x[0, 0]), X),
        case(
            "stacks",
            lambda x: (
                torch.hstack((x, x)),
                torch.vstack((x, x)),
                torch.dstack((x, x)),
            ),
            X,
        ),
        case("column_stack", lambda x: torch.column_stack((x[0, 0], x[0].T)), X),
    ],
)
def test_shapes(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, (torch.randn(2, *args[0].shape[1:]),))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("cat", lambda a, b: torch.cat((a, b), -1), X, X),
        case(
            "cat of dtypes",
            lambda a, b: torch.cat((a, b)),
            X,
            torch.ones(2, 4, 6).long(),
        ),
        case("cat with nothing", lambda a, b: torch.cat((a, b)), X, torch.zeros(0)),
        case("stack", lambda a, b: torch.stack((a, b), 1), X, X),
        case("stack of numbers", lambda a, b: torch.stack((a.sum(), b.sum())), X, X),
        case(
            "broadcast",
            lambda a, b: torch.broadcast_tensors(a, b),
            X,
            torch.randn(4, 1),
        ),
        case("nothing split", lambda a: a.reshape(0, 3, 2), torch.zeros(0, 6)),
        case("flatten of nothing", lambda a: a.flatten(), torch.zeros(2, 0)),
        case("number to vector", lambda a: a.reshape(1), torch.tensor(2.0)),
        case("to a number", lambda a: a.reshape(()), torch.ones(1)),
        case(
            "repeats",
            lambda a, n: a.repeat_interleave(n, 0, output_size=6),
            X,
            ints(1, 3, 2),
        ),
    ],
)
def test_joined_and_empty(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_code_bakes_no_sizes_in() -> None:
    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], 2, 3).transpose(1, 2)

    graph = lowered(heads, (X,)).graph
    (reshape,) = (n for n in graph.nodes if n.target is mx.reshape)
    assert not any(size in (3, 4) for size in reshape.args[1][:2])
    run_lowered(heads, (X,), (torch.randn(5, 7, 6),))


def test_one_varying_size_is_minus_one() -> None:
    graph = lowered(lambda x: x.reshape(-1, 6), (X,)).graph
    (reshape,) = (n for n in graph.nodes if n.op == "call_function")
    assert tuple(reshape.args[1]) == (-1, 6)
