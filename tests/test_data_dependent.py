"""Models whose shapes depend on values: the sizes are read at run time, from the arrays that have them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import torch2mlx
from tests.lowering import to_mlx
from tests.program import check
from torch2mlx.errors import CaptureError, UnsupportedError


class ValidTokens(nn.Module):
    """Computes where the mask is set only, and puts the results back."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = self.fc(x[mask])
        y = torch.zeros_like(x)
        y[mask] = tokens
        return y


class Experts(nn.Module):
    """A mixture of experts: each sees the tokens that are routed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = torch.topk(self.router(x).softmax(-1), 2)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            token, rank = torch.where(chosen == i)
            out = expert(x[token]) * weights[token, rank, None]
            y = y.index_add(0, token, out)
        return y


class Picker(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x[:, 0] > 0]


class Mean(nn.Module):
    """A size that a module's result has, which other modules read."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = Picker()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        picked = self.pick(x)
        count = picked.shape[0]
        return self.fc(picked).sum(0) / (count + 1), torch.ones(count, 2)


class Length(nn.Module):
    def forward(self, mask: torch.Tensor) -> Any:
        return mask.sum(-1).max().item()


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return self.fc(x[:, :n]) + torch.arange(n)[:, None] / (n + 1)


class Truncated(nn.Module):
    """A number that one module reads and others take as a size."""

    def __init__(self) -> None:
        super().__init__()
        self.length = Length()
        self.first, self.second = Head(), Head()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        n = self.length(mask)
        torch._check(n <= x.shape[1])
        return self.first(x, n), self.second(x, n), x * n


def tokens(*rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens and this mask."""
    mask = torch.tensor(rows, dtype=torch.bool)
    return torch.randn(*mask.shape, 4), mask


SOME = tokens([1, 1, 0], [0, 1, 0])
ALL = tokens([1, 1, 1, 1], [1, 1, 1, 1])
NONE = tokens([0, 0, 0, 0, 0], [0, 0, 0, 0, 0])


def test_valid_tokens() -> None:
    program = check(ValidTokens(), SOME, ALL, NONE, tokens([0, 0, 1], [1, 0, 1]))
    assert "self.fc(masked_select(x, mask))" in program.source
    (note,) = [n for n in program.report.notes if "mx.compile" in n]
    assert "`masked_select`" in note


def test_gradients_of_selected_values() -> None:
    model = ValidTokens()
    module = torch2mlx.compile(model, SOME).load()
    for x, mask in (SOME, NONE):
        leaf = x.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(model(leaf, mask).square().sum(), leaf)
        loss = lambda v, m: mx.sum(module(v, m) ** 2)  # noqa: E731
        found = mx.grad(loss)(to_mlx(x), to_mlx(mask))
        np.testing.assert_allclose(
            np.array(found), wanted.numpy(), rtol=1e-5, atol=1e-6
        )


def test_mixture_of_experts() -> None:
    model = Experts()
    one_expert = torch.zeros(4, 4)  # all alike: the third expert gets none
    program = check(model, (torch.randn(7, 4),), (torch.randn(2, 4),), (one_expert,))
    assert "nonzero(" in program.source
    module = program.load()
    x = torch.randn(5, 4, requires_grad=True)
    (wanted,) = torch.autograd.grad(model(x).square().sum(), x)
    found = mx.grad(lambda v: mx.sum(module(v) ** 2))(to_mlx(x))
    np.testing.assert_allclose(np.array(found), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_without_weights() -> None:
    with torch.device("meta"):
        model = Experts()
    x = torch.randn(6, 4, device="meta")
    assert "nonzero(" in torch2mlx.compile(model, (x,)).source


def test_sizes_of_a_modules_result() -> None:
    x = torch.randn(6, 4)
    program = check(Mean(), (x,), (x.abs(),), (-x.abs(),), (torch.randn(3, 4),))
    assert "= picked.shape[0]" in program.source


def test_numbers_cross_modules() -> None:
    program = check(Truncated(), SOME, ALL, NONE)
    assert program.source.count(".item()") == 1
    assert "def __call__(self, mask: mx.array) -> int:" in program.source
    assert "def __call__(self, x: mx.array, n: int) -> mx.array:" in program.source


def test_same_code_for_other_examples() -> None:
    model = ValidTokens()
    one, other = (torch2mlx.compile(model, case).source for case in (SOME, NONE))
    assert one == other


def test_verify() -> None:
    assert torch2mlx.compile(Experts(), (torch.randn(6, 4),)).verify().ok


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


IDS = torch.tensor([1, 0, 3])
X = torch.randn(3, 4)


def classes(ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(ids)


def equals(x: torch.Tensor) -> bool:
    return torch.equal(x, x + 1)


def close(x: torch.Tensor) -> bool:
    return torch.allclose(x, x + 1)


def times(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return x * int(ids[0])


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * float((x > 0).any().item())


def two_indices(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return x[x[:, 0] > 0, ids[:2]]


@pytest.mark.parametrize(
    ("function", "args", "cause", "rewrite"),
    [
        (classes, (IDS,), "must be a Python int", "num_classes"),
        (times, (X, IDS), "must be a Python int", "x.item()"),
        (equals, (X,), "torch.equal gives a Python bool", "(a == b).all()"),
        (close, (X,), "torch.allclose gives a Python bool", "torch.isclose(a, b)"),
        (scaled, (X,), "a bool that is read from a tensor", ".to(x.dtype)"),
        (two_indices, (X, IDS), "depends on values in a way", "one mask alone"),
    ],
)
def test_what_export_refuses(
    function: Any, args: Any, cause: str, rewrite: str
) -> None:
    with pytest.raises(CaptureError) as caught:
        torch2mlx.compile(Function(function), args)
    first, where, last = str(caught.value).splitlines()
    assert cause in first
    assert __file__ in where
    assert rewrite in last


def test_squeeze_of_a_size_that_depends_on_values() -> None:
    with pytest.raises(UnsupportedError, match="use reshape"):
        torch2mlx.compile(Function(lambda x: x[x > 0].squeeze()), (X,))


def test_wrong_shape_in_export() -> None:
    check(Function(lambda x: torch.unique(x, dim=-1)), (torch.ones(3, 4),))

    def last_axis(x: torch.Tensor) -> Any:
        return torch.ops.aten.unique_consecutive(x, False, False, -1)

    with pytest.raises(UnsupportedError, match="without a minus sign"):
        torch2mlx.compile(Function(last_axis), (X,))


def test_example_that_breaks_a_promise() -> None:
    def split(x: torch.Tensor, sizes: torch.Tensor) -> Any:
        return torch.split(x, sizes.tolist())

    sizes = torch.tensor([2, 1])
    check(Function(split), (X, sizes), (X, torch.tensor([0, 3])))
    with pytest.raises(CaptureError, match="fails on the example inputs"):
        torch2mlx.compile(Function(split), (X, sizes + 1))
