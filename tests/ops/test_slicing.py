"""Parts of arrays, splits and padding against PyTorch, at two batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered
from tests.ops.cases import case, ints

X = torch.randn(3, 7, 6)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("slice", lambda x: x[:, 1:-1], X),
        case("step", lambda x: x[..., ::2], X),
        case("negative start", lambda x: x[:, -3:], X),
        case("beyond the end", lambda x: x[:, 2:100], X),
        case("empty", lambda x: x[:, 5:2], X),
        case("by another size", lambda x: x[:, : x.shape[0]], X),
        case("select", lambda x: x[:, -1], X),
        case("select last axis", lambda x: x[..., 2], X),
        case("narrow", lambda x: x.narrow(1, 2, 3), X),
        case("narrow back", lambda x: x.narrow(1, -3, 2), X),
        case("unbind", lambda x: x.unbind(2), X),
        case("split", lambda x: x.split(2, 2), X),
        case("split with a rest", lambda x: x.split(4, -1), X),
        case("split sizes", lambda x: x.split([1, 2, 3], 2), X),
        case("chunk", lambda x: x.chunk(3, -1), X),
        case("chunk with a rest", lambda x: x.chunk(4, 1), X),
        case("tensor_split", lambda x: x.tensor_split(4, 2), X),
        case("tensor_split at", lambda x: x.tensor_split((1, 4), 2), X),
        case("hsplit", lambda x: x[..., 0, :].hsplit(3), X),
        case("diagonal", lambda x: x.diagonal(1, 1, 2), X),
        case("diag_embed", lambda x: x[0].diag_embed(1), X),
        case("diag_embed below", lambda x: x[0].diag_embed(-1, 0, 2), X),
        case("diag", lambda x: x[0, 0].diag(1), X),
        case("tril", lambda x: x.tril(-1), X),
        case("triu", lambda x: x.triu(2), X),
        case("tril of ints", lambda x: (x > 0).long().tril(), X),
    ],
)
def test_parts(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args, (torch.randn(2, *args[0].shape[1:]),))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case(
            "slice_scatter",
            lambda x, y: x.slice_scatter(y, 1, 1, 5, 2),
            X,
            torch.randn(3, 2, 6),
        ),
        case(
            "select_scatter",
            lambda x, y: x.select_scatter(y, 2, -1),
            X,
            torch.randn(3, 7),
        ),
        case(
            "diagonal_scatter",
            lambda x, y: x.diagonal_scatter(y, 1, 1, 2),
            X,
            torch.randn(3, 5),
        ),
    ],
)
def test_written_parts(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("pad", [(1, 2), (2, 1, 0, 1), (-1, 2), (1, -2, 2, 0)])
def test_pad(mode: str, pad: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 5, 6) if len(pad) == 4 else torch.randn(2, 3, 6)
    run_lowered(lambda x: F.pad(x, pad, mode), (x,), (torch.randn(4, *x.shape[1:]),))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("value", lambda x: F.pad(x, (1, 1), value=-2.5), X),
        case("ints", lambda x: F.pad(x, (0, 2), value=7), ints(1, 2, 3)),
        case("bools", lambda x: F.pad(x > 0, (1, 0), value=True), X),
        case("cut only", lambda x: F.pad(x, (-1, -2)), X),
        case("replicate what is cut", lambda x: F.pad(x, (-6, 3), "replicate"), X),
        case("first axis", lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), X),
    ],
)
def test_pad_values(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


def test_split_of_a_varying_axis() -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2)
        return torch.cat((second, first))

    run_lowered(halves, (torch.randn(4, 3),), (torch.randn(7, 3),))


def test_code_is_what_people_write() -> None:
    def calls(function: Callable[..., Any]) -> list[Any]:
        graph = lowered(function, (X,), dynamic=False).graph
        return [n for n in graph.nodes if n.op == "call_function"]

    (select,) = calls(lambda x: x[:, 0])
    assert select.args[1] == (slice(None), 0)
    split, *_ = calls(lambda x: sum(x.chunk(3, -1)))
    assert split.target is mx.split
    assert split.args[1] == 3
    assert not calls(lambda x: x[:, 0:100])


def test_split_by_a_varying_size() -> None:
    def parts(x: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.cat([x, -x, 2 * x]).split(x.shape[0]))

    run_lowered(parts, (torch.randn(4, 3),), (torch.randn(5, 3),))


def test_chunk_cat() -> None:
    run_lowered(
        lambda x, y: torch._chunk_cat([x, y], 1, 2),
        (torch.randn(2, 3, 4), torch.randn(2, 5)),
    )
    run_lowered(lambda x: torch._chunk_cat([x, x * 2], 0, 3), (torch.randn(6, 2),))
