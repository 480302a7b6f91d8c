"""The helper functions alone, against PyTorch, and what generated files need of them."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.lowering import to_mlx, to_numpy
from torch2mlx_templates import helpers

NAN, INF = float("nan"), float("inf")
FUNCTIONS = {n: f for n, f in vars(helpers).items() if inspect.isfunction(f)}
ALLOWED = {
    "functools",
    "mlx",
    "math",
    "itertools",
    "typing",
    "collections",
    "torch2mlx_templates",
    "__future__",
}


def check(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Compare arrays, or tuples of them, with PyTorch's."""
    if isinstance(expected, tuple):
        for have, want in zip(actual, expected, strict=True):
            check(have, want, tolerance)
        return
    have, want = to_numpy(actual), to_numpy(expected)
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def last(x: torch.Tensor) -> mx.array:
    """[N, C, *S] as an MLX array [N, *S, C]."""
    return to_mlx(x.movedim(1, -1))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_helpers_stand_alone(name: str) -> None:
    function = FUNCTIONS[name]
    tree = ast.parse(inspect.getsource(inspect.getmodule(function)))
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {str(module).partition(".")[0] for module in imported} <= ALLOWED
    assert function.__doc__
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_integers() -> None:
    a = torch.tensor([-7, -7, 7, 7, 0])
    b = torch.tensor([2, -2, 2, -2, 3])
    check(
        helpers.truncated_division(to_mlx(a), to_mlx(b)),
        torch.div(a, b, rounding_mode="trunc"),
    )
    check(helpers.fmod(to_mlx(a), to_mlx(b)), torch.fmod(a, b))
    check(helpers.fmod(to_mlx(a), 2.5), torch.fmod(a, 2.5))
    check(helpers.integer_power(to_mlx(b), to_mlx(a)), torch.pow(b, a))
    check(helpers.integer_matmul(to_mlx(a), to_mlx(b)), a @ b)


def test_signs_and_nan() -> None:
    a, b = torch.tensor([NAN, -1.0, 0.0, -0.0]), torch.tensor([2.0, NAN, -0.0, 3.0])
    for name in ("fmax", "fmin", "xlogy", "hypot"):
        check(getattr(helpers, name)(to_mlx(a), to_mlx(b)), getattr(torch, name)(a, b))
    check(helpers.signbit(to_mlx(a[1:])), torch.signbit(a[1:]))
    check(helpers.copysign(to_mlx(a[1:]), -0.0), torch.copysign(a[1:], -0.0))
    check(helpers.sinc(to_mlx(a)), torch.sinc(a))


def test_order() -> None:
    x = torch.tensor([[3.0, NAN, 3.0, -INF], [0.0, 5.0, 5.0, 1.0]])
    check(
        helpers.argsort_descending(to_mlx(x)), x.sort(descending=True, stable=True)[1]
    )
    check(helpers.cummax_indices(to_mlx(x), 1), x.cummax(1)[1])
    check(helpers.cummin_indices(to_mlx(x), 1), x.cummin(1)[1])
    check(helpers.lower_median(to_mlx(x), 1), tuple(x.median(1, keepdim=True)))
    check(
        helpers.kth_smallest(to_mlx(x[1:]), 1, 1),
        tuple(x[1:].kthvalue(2, 1, keepdim=True)),
    )
    check(helpers.quantile(to_mlx(x), 0.4, 1), x.quantile(0.4, 1))
    check(helpers.histc(to_mlx(x[1]), 3, 0, 5), x[1].histc(3, 0, 5))
    check(
        helpers.searchsorted(mx.array([1, 2, 2]), mx.array([2, 0])),
        torch.tensor([1, 0]),
    )
    check(
        helpers.searchsorted(mx.array([1, 2, 2]), mx.array([2, 0]), right=True),
        torch.tensor([3, 0]),
    )
    check(helpers.diff(to_mlx(x[1:]), 2, 1), x[1:].diff(2, 1))


def test_indices() -> None:
    x, index = torch.randn(3, 4), torch.tensor([[0, 2], [1, 1]])
    own = to_mlx(x)
    check(helpers.assign(own, 1, 7.0), x.index_fill(0, torch.tensor(1), 7))
    check(own, x)  # the argument stays as it is
    check(own[helpers.along_axis(to_mlx(index), 0)], x.gather(0, index))
    source = torch.randn(12)
    check(
        helpers.masked_scatter(own, to_mlx(x > 0), to_mlx(source)),
        x.masked_scatter(x > 0, source),
    )
    for offset in (-1, 0, 2):
        check(helpers.diag_embed(own, offset), x.diag_embed(offset))


def test_linear_algebra() -> None:
    x = torch.randn(2, 4, 3)
    for order in ("nuc", 2, -2):
        check(
            helpers.spectral_norm(to_mlx(x), order, (1, 2), False),
            torch.linalg.matrix_norm(x, order),
        )
    for order in (0, 1, 3.0, INF, -INF):
        check(
            helpers.vector_norm(to_mlx(x), order, 1),
            torch.linalg.vector_norm(x, order, 1),
        )
    check(helpers.pinv(to_mlx(x), 0.0, 1e-6), torch.linalg.pinv(x))
    check(
        helpers.cross(to_mlx(x), to_mlx(x.flip(0)), 2), torch.linalg.cross(x, x.flip(0))
    )


def test_products_of_picked_matrices() -> None:
    x, weight = torch.randn(5, 1, 4), torch.randn(3, 4, 6)
    index = torch.tensor([0, 0, 1, 2, 2])
    arrays = to_mlx(x), to_mlx(weight), to_mlx(index)
    check(helpers.gather_mm(*arrays), x @ weight[index])
    check(helpers.gather_mm(*arrays, sorted_indices=True), x @ weight[index])
    half = tuple(a.astype(mx.bfloat16) for a in arrays[:2])
    check(helpers.gather_mm(*half, arrays[2]), x @ weight[index], 5e-2)
    # The rows 0 and 1, none, 2 and 3; none has the last one
    rows, ends = torch.randn(5, 4), torch.tensor([2, 2, 4])
    wanted = torch.cat([rows[:2] @ weight[0], rows[2:4] @ weight[2], torch.zeros(1, 6)])
    check(helpers.grouped_mm(to_mlx(rows), to_mlx(weight), to_mlx(ends)), wanted)


@pytest.mark.parametrize("count", [5, 80])
def test_products_of_picked_rows(count: int) -> None:
    """Few rows as they are, many sorted by their matrices."""
    x, weight = torch.randn(count, 1, 4), torch.randn(3, 4, 6)
    index = torch.randint(0, 3, (count, 2))
    expected = (x.unsqueeze(-2) @ weight[index]).squeeze(-2)
    arrays = to_mlx(x), to_mlx(weight), to_mlx(index)
    check(helpers.gather_mm(*arrays), expected)
    one = index[:, 0]
    check(helpers.gather_mm(to_mlx(x[:, 0]), arrays[1], to_mlx(one)), expected[:, 0])
    x = torch.randn(count, 3, 4)
    check(helpers.gather_mm(to_mlx(x), arrays[1], to_mlx(one)), x @ weight[one])

    def total(x: mx.array, weight: mx.array) -> mx.array:
        return mx.sum(helpers.gather_mm(x, weight, to_mlx(one)) ** 2)

    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    ((leaves[0] @ leaves[1][one]) ** 2).sum().backward()
    for found, leaf in zip(
        mx.grad(total, (0, 1))(to_mlx(x), arrays[1]), leaves, strict=True
    ):
        assert leaf.grad is not None
        check(found, leaf.grad, 1e-4)


def test_masked_attention() -> None:
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    mask = torch.rand(4, 5) > 0.5
    mask[1] = False
    got = helpers.masked_attention(
        to_mlx(q), to_mlx(k), to_mlx(v), to_mlx(mask), 8**-0.5
    )
    check(got, F.scaled_dot_product_attention(q, k, v, mask))


def test_grouped_convolutions() -> None:
    x, w = torch.randn(2, 4, 5, 6, 4), torch.randn(6, 2, 3, 2, 2)
    got = helpers.grouped_conv3d(last(x), last(w), 2, 2, 1)
    check(got.transpose(0, 4, 1, 2, 3), F.conv3d(x, w, None, 2, 1, groups=2), 1e-4)
    w = torch.randn(4, 3, 3, 2, 2)
    kernel = (
        w.reshape(2, 2, 3, 3, 2, 2).permute(0, 2, 3, 4, 5, 1).reshape(6, 3, 2, 2, 2)
    )
    got = helpers.grouped_conv_transpose3d(last(x), to_mlx(kernel), 2, 2)
    check(
        got.transpose(0, 4, 1, 2, 3), F.conv_transpose3d(x, w, None, 2, groups=2), 1e-4
    )


def test_pools() -> None:
    x = torch.randn(2, 3, 7, 6)
    window = ((3, 2), (2, 2), (1, 1))
    got = helpers.max_pool(last(x), *window, (1, 2), True)
    want, places = F.max_pool2d(x, *window, (1, 2), True, return_indices=True)
    check(got.transpose(0, 3, 1, 2), want)
    check(
        helpers.max_pool_indices(last(x), *window, (1, 2), True).transpose(0, 3, 1, 2),
        places,
    )
    for counted in (True, False):
        got = helpers.avg_pool(last(x), *window, True, counted)
        check(got.transpose(0, 3, 1, 2), F.avg_pool2d(x, *window, True, counted))
    got = helpers.sum_pool(last(x), *window, True) / 5
    check(got.transpose(0, 3, 1, 2), F.avg_pool2d(x, *window, True, divisor_override=5))
    for size in ((3, 4), (7, 2), (10, 1)):
        got = helpers.adaptive_avg_pool(last(x), size)
        check(got.transpose(0, 3, 1, 2), F.adaptive_avg_pool2d(x, size))
        want, places = F.adaptive_max_pool2d(x, size, return_indices=True)
        check(helpers.adaptive_max_pool(last(x), size).transpose(0, 3, 1, 2), want)
        check(
            helpers.adaptive_max_pool_indices(last(x), size).transpose(0, 3, 1, 2),
            places,
        )


def test_recurrent_layers() -> None:
    x, h, c = torch.randn(2, 5, 3), torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    with torch.no_grad():
        for name, module, states in (
            ("lstm_layer", torch.nn.LSTM(3, 4, batch_first=True), (h, c)),
            ("gru_layer", torch.nn.GRU(3, 4, batch_first=True), (h,)),
        ):
            w_x, w_h, b_x, b_h = (to_mlx(w) for w in module._flat_weights)
            biases = (b_x + b_h,) if name == "lstm_layer" else (b_x, b_h)
            got = getattr(helpers, name)(
                to_mlx(x), *(to_mlx(s[0]) for s in states), w_x, w_h, *biases
            )
            y, end = module(x, states if len(states) > 1 else h)
            ends = end if isinstance(end, tuple) else (end,)
            check(tuple(got), (y, *(e[0] for e in ends)))


@pytest.mark.parametrize("align", [True, False])
def test_resampling(align: bool) -> None:
    x = torch.randn(2, 3, 6, 5)
    for size in ((9, 4), (3, 10)):
        for name, mode in (
            ("interpolate_linear", "bilinear"),
            ("interpolate_cubic", "bicubic"),
        ):
            got = getattr(helpers, name)(last(x), size, align_corners=align)
            want = F.interpolate(x, size, mode=mode, align_corners=align)
            check(got.transpose(0, 3, 1, 2), want)
        got = helpers.interpolate_nearest(last(x), size, exact=align)
        mode = "nearest-exact" if align else "nearest"
        check(got.transpose(0, 3, 1, 2), F.interpolate(x, size, mode=mode))
        got = helpers.interpolate_antialiased(last(x), size, align_corners=align)
        want = F.interpolate(
            x, size, mode="bilinear", align_corners=align, antialias=True
        )
        check(got.transpose(0, 3, 1, 2), want)


def test_shuffled_pixels() -> None:
    x = torch.randn(2, 12, 3, 4)
    check(
        helpers.pixel_shuffle(last(x), 2).transpose(0, 3, 1, 2), F.pixel_shuffle(x, 2)
    )
    x = torch.randn(2, 3, 4, 6)
    check(
        helpers.pixel_unshuffle(last(x), 2).transpose(0, 3, 1, 2),
        F.pixel_unshuffle(x, 2),
    )


def test_lines_fit_the_generated_file() -> None:
    """Helpers are copied as they stand, into files of 88 columns."""
    folder = Path(helpers.__file__).parent
    lines = [
        line for path in folder.glob("*.py") for line in path.read_text().splitlines()
    ]
    assert max(map(len, lines)) <= 88
