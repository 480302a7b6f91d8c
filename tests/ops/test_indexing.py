"""Reading, writing, sorting and searching against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import lowered, run_lowered
from tests.ops.cases import INF, NAN, bools, case, floats, ints
from torch2mlx.errors import UnsupportedError

X = torch.randn(5, 4, 6)
ROWS = ints(0, -1, 2, 2)
SMALL = torch.tensor([[0, 3, 1], [2, 2, 4]])
TIES = torch.tensor([[2.0, 7.0, 7.0, 1.0, 7.0], [5.0, 5.0, 0.0, 5.0, 1.0]])
UNSORTED = floats(1.0, NAN, -INF, 3.0, INF, 3.0)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("rows", lambda x, i: x[i], X, ROWS),
        case("columns", lambda x, i: x[:, i], X, ROWS),
        case("pairs", lambda x, i, j: x[i, j], X, ROWS, ints(1, 1, 0, -2)),
        case("split indices", lambda x, i, j: x[i, :, j], X, ROWS, ints(1, 1, 0, -2)),
        case("int32 indices", lambda x, i: x[i], X, ROWS.int()),
        case("uint8 minus one", lambda x, i: x[(i - 1).long()], X, ints(1, 2).byte()),
        case("matrix of indices", lambda x, i: x[i], X, SMALL),
        case("index_select", lambda x, i: x.index_select(1, i), X, ints(3, 0)),
        case("take", torch.take, X, ints(0, 7, 119)),
        case("no indices", lambda x, i: x[i], X, torch.zeros(0).long()),
        case(
            "gather",
            lambda x, i: x[0, :, :5].gather(1, i),
            X,
            torch.tensor([[0, 4], [1, 1], [2, 0], [3, 3]]),
        ),
        case("gather a part", lambda x, i: x[..., 0].gather(0, i), X, SMALL),
        case("gather along the last", lambda x, i: x[0].gather(-1, i), X, SMALL),
        case(
            "take_along_dim",
            lambda x, i: x[..., 0].take_along_dim(i, 0),
            X,
            SMALL[:, :1],
        ),
        case("embedding", F.embedding, SMALL, torch.randn(5, 3)),
        case(
            "embedding of few",
            lambda w: F.embedding(torch.tensor([1, 0]), w),
            torch.randn(5, 3),
        ),
    ],
)
def test_reading(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


M = torch.randn(5, 4)
SOURCE = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case(
            "index_put",
            lambda x, i, v: x.index_put((i,), v),
            M,
            ints(0, -1),
            torch.randn(2, 4),
        ),
        case(
            "index_put of a number",
            lambda x, i: x.index_put((i,), torch.tensor(3)),
            M.long(),
            ints(0, 2),
        ),
        case(
            "accumulate",
            lambda x, i, v: x.index_put((i,), v, accumulate=True),
            M,
            ints(0, 0),
            torch.randn(2, 4),
        ),
        case(
            "masked number", lambda x, m: x.index_put((m,), torch.tensor(0.5)), M, M > 0
        ),
        case(
            "masked rows",
            lambda x, m, v: x.index_put((m,), v),
            M,
            bools(1, 0, 0, 1, 0),
            torch.randn(4),
        ),
        case(
            "masked rows, each",
            lambda x, m, v: x.index_put((m,), v),
            M,
            bools(1, 0, 0, 1, 0),
            torch.randn(2, 4),
        ),
        case(
            "masked elements, each",
            lambda x, m, v: x.index_put((m,), v),
            floats(1.0, 2.0, 3.0),
            bools(1, 0, 1),
            floats(8.0, 9.0),
        ),
        case("scatter", lambda x, i, v: x.scatter(0, i, v), M, SMALL, SOURCE),
        case(
            "scatter of a larger source",
            lambda x, i, v: x.scatter(0, i, v),
            M,
            SMALL,
            torch.randn(3, 4),
        ),
        case(
            "scatter of a number",
            lambda x, i: x.scatter(1, i, 7.5),
            M,
            ints(0, 1, 3, 2, 2)[:, None],
        ),
        case(
            "scatter into ints",
            lambda x, i, v: x.scatter(0, i, v),
            M.long(),
            SMALL,
            SMALL,
        ),
        case("scatter_add", lambda x, i, v: x.scatter_add(0, i, v), M, SMALL, SOURCE),
        case(
            "scatter_add of ints",
            lambda x, i: x.scatter_add(1, i, i),
            torch.zeros(2, 5).long(),
            SMALL,
        ),
        case(
            "scatter multiply",
            lambda x, i: x.scatter(0, i, 2.5, reduce="multiply"),
            M,
            SMALL,
        ),
        case("masked_scatter", torch.masked_scatter, M, M > 0, torch.randn(5, 4)),
        case(
            "index_add",
            lambda x, i, v: x.index_add(1, i, v, alpha=2),
            M,
            ints(0, 0, 2),
            torch.randn(5, 3),
        ),
        case(
            "index_copy",
            lambda x, i, v: x.index_copy(0, i, v),
            M,
            ints(3, 1),
            torch.randn(2, 4),
        ),
        case("index_fill", lambda x, i: x.index_fill(1, i, -1), M, ints(0, 3)),
        case("put", lambda x, i, v: x.put(i, v), M, ints(3, 19), floats(1.0, 2.0)),
        case(
            "put accumulate",
            lambda x, i, v: x.put(i, v, accumulate=True),
            M,
            ints(3, 3),
            floats(1.0, 2.0),
        ),
    ],
)
def test_writing(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce(reduce: str, include_self: bool) -> None:
    def function(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(0, i, v, reduce, include_self=include_self)

    run_lowered(function, (M, SMALL, SOURCE))
    run_lowered(function, (ints(9, 9, 9, 9), ints(0, 0, 2), ints(5, -4, 3)))


@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("sort", lambda x: x.sort(), UNSORTED),
        case("sort down", lambda x: x.sort(descending=True), UNSORTED),
        case("sort along", lambda x: x.sort(0), M),
        case("stable", lambda x: x.sort(stable=True), TIES),
        case("stable down", lambda x: x.sort(stable=True, descending=True), TIES),
        case("uint8 down", lambda x: x.sort(descending=True), ints(3, 0, 255).byte()),
        case("smallest int", lambda x: x.sort(descending=True), ints(-(2**63), 0, 5)),
        case("argsort", lambda x: x.argsort(1), M),
        case("argsort down", lambda x: x.argsort(descending=True, stable=True), TIES),
        case("topk", lambda x: x.topk(2), M),
        case("topk smallest", lambda x: x.topk(3, 0, largest=False), M),
        case("topk of a softmax", lambda x: x.softmax(-1).topk(2), M),
        case("topk along another axis", lambda x: x.softmax(-1).topk(2, 0), M),
        case(
            "topk of a softmax of nan",
            lambda x: x.softmax(-1).topk(2)[0],
            floats(1.0, NAN, 2.0),
        ),
        case("topk of nan", lambda x: x.topk(3), floats(1.0, NAN, 2.0, INF)),
        case("msort", torch.msort, M),
        case("one_hot", lambda x: F.one_hot(x, 5), SMALL),
        case("bucketize", torch.bucketize, M, floats(-1.0, 0.0, 0.5)),
        case(
            "bucketize right",
            lambda x, b: torch.bucketize(x, b, right=True),
            ints(1, 2),
            ints(1, 2),
        ),
        case(
            "searchsorted", torch.searchsorted, M.sort(-1).values, M[:, :2].contiguous()
        ),
        case(
            "searchsorted number",
            lambda s: torch.searchsorted(s, 2, side="right"),
            ints(1, 2, 2, 5),
        ),
        case("isin", torch.isin, SMALL, ints(1, 4)),
        case("not in", lambda x, y: torch.isin(x, y, invert=True), SMALL, ints(1, 4)),
        case("is a number", lambda x: torch.isin(x, 2), SMALL),
    ],
)
def test_order_and_search(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    run_lowered(function, args)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: F.one_hot(x.long().abs()), "."),
    ],
)
def test_sizes_that_depend_on_values_are_refused(
    function: Callable[..., Any], reason: str
) -> None:
    from torch2mlx.errors import CaptureError

    with pytest.raises((UnsupportedError, CaptureError), match=reason):
        lowered(function, (M,))
