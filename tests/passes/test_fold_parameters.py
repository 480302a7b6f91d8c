"""What depends on weights alone is computed when they are converted: each call against PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

import torch2mlx
from tests.program import check
from torch2mlx.capture import Captured, capture
from torch2mlx.emit.weights import as_array
from torch2mlx.errors import InputError
from torch2mlx.passes import run
from torch2mlx.passes.fold_parameters import fold_parameters
from torch2mlx.passes.parameter_calls import TABLE, VIEWS
from torch2mlx.weights import WeightPlan, apply
from torch2mlx.weights.expression import evaluate, shape_of

aten = torch.ops.aten
A, B, C = 2, 3, 5


class Weights(nn.Module):
    """Weights of some shapes, and an expression over them."""

    def __init__(self, function: Callable[[Any], torch.Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.a = nn.Parameter(torch.rand(A, B, C) + 0.5)
        self.b = nn.Parameter(torch.rand(B, 1) + 0.5)
        self.m = nn.Parameter(torch.randn(4, C))
        self.v = nn.Parameter(torch.rand(4))
        self.register_buffer("index", torch.tensor([2, 0, 1, 1, -1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.function(self)


CASES: dict[str, Callable[[Any], torch.Tensor]] = {
    "unary": lambda s: (
        s.a.abs() + s.a.cos() + s.a.exp() + s.a.expm1() + s.a.log() + s.a.log1p()
    ),
    "unary too": lambda s: (
        s.a.reciprocal() * s.a.rsqrt() + s.a.sigmoid() * s.a.sin() + s.a.sqrt()
    ),
    "and unary": lambda s: s.a.square() - s.a.tanh() + (-s.a) + F.silu(s.a),
    "ramps": lambda s: F.relu(s.m) + F.softplus(s.m * 40),
    "scalars": lambda s: (1 - s.a * 2 + 3) / 4 - 0.5,
    "broadcast": lambda s: (s.a + s.b) * s.b - s.a / s.b,
    "powers": lambda s: s.a**3 + s.a.pow(s.b),
    "extremes": lambda s: torch.maximum(s.a, s.b) + torch.minimum(s.a, s.b),
    "clamps": lambda s: (
        s.m.clamp(-0.5, 0.5) + s.m.clamp(min=0.1) + s.m.clamp(max=0.2)
    ),
    "clamp_min": lambda s: aten.clamp_min(s.m, 0.1) + aten.clamp_max(s.m, 0.3),
    "rsub": lambda s: torch.rsub(s.a, 2.0),
    "scalar overloads": lambda s: aten.add.Scalar(
        aten.sub.Scalar(aten.mul.Scalar(aten.div.Scalar(s.a, 3), 5), 2), 1
    ),
    "take": lambda s: s.m[:, s.index].exp(),
    "take rows": lambda s: s.m[s.index.view(5, 1)].exp(),
    "index_select": lambda s: s.m.index_select(0, s.index[:3]).exp(),
    "embedding": lambda s: F.embedding(s.index[1:4], s.m).exp(),
    "linear": lambda s: F.linear(s.a, s.m, s.v) + F.linear(s.a, s.m),
    "matmul": lambda s: s.a @ s.m.t() + s.m[:3] @ s.m.transpose(0, 1),
    "bmm": lambda s: torch.bmm(s.a, s.a.transpose(1, 2)),
    "mm": lambda s: torch.mm(s.m, s.m.t()),
    "sums": lambda s: s.a.sum((0, 2)) + s.a.sum() + s.a.mean() + s.a.mean(-1)[0],
    "extreme values": lambda s: s.a.amax(1, True) + s.a.amin((0, -1), True),
    "variance": lambda s: s.a.var((1, 2)) + s.a.var(-1, correction=0).sum() + s.a.var(),
    "softmax": lambda s: s.a.softmax(1),
    "norm": lambda s: s.m / torch.linalg.vector_norm(s.m, dim=1, keepdim=True),
    "weight_norm": lambda s: torch._weight_norm(s.a, s.b[:2].reshape(2, 1, 1), 0),
    "standardised": lambda s: F.batch_norm(s.a, None, None, training=True, eps=1e-3),
    "standardised too": lambda s: F.batch_norm(
        s.a, None, None, s.b[:, 0].exp(), s.b[:, 0], training=True
    ),
    "cat": lambda s: torch.cat([s.a, s.a.exp()], -2),
    "written to": lambda s: torch.slice_scatter(
        torch.slice_scatter(s.m.exp(), s.m[:2], 0, 1, 3), s.m[:, :2], 1, 0, 2
    ),
    "written to the end": lambda s: torch.slice_scatter(s.m.exp(), s.m[:2], 0, 2),
    "moved": lambda s: s.a.permute(2, 0, 1).flatten(1).t().unsqueeze(0).exp(),
    "permuted": lambda s: s.a.exp().permute(2, 0, 1).softmax(1),
    "moved too": lambda s: s.a.reshape(-1, C)[1:5:2].squeeze().select(1, -2).exp(),
    "and moved": lambda s: s.a.view(A, B, 1, C).squeeze(2).exp().unflatten(1, (1, 3)),
    "filled": lambda s: (
        s.a + torch.zeros_like(s.a) + s.b * torch.full((B, C), 2.0) + torch.ones(C)
    ),
}


def captured_of(name: str) -> Captured:
    """The case after the other passes."""
    found = capture(Weights(CASES[name]), (torch.ones(1),))
    run(found)
    return found


@functools.cache
def targets(name: str) -> frozenset[Any]:
    """What a case calls."""
    graph = captured_of(name).graph
    return frozenset(n.target for n in graph.nodes if n.op == "call_function")


@pytest.mark.parametrize("name", CASES)
def test_same_numbers(name: str) -> None:
    model = Weights(CASES[name])
    captured = captured_of(name)
    assert fold_parameters(captured)
    (weight,) = captured.folded.values()
    tensors = [captured.tensors[key] for key in weight.sources]
    arrays = [as_array(key, captured.tensors[key]) for key in weight.sources]
    dtypes = ["F32" if t.is_floating_point() else "I64" for t in tensors]
    found = evaluate(weight.expression, arrays, dtypes)
    expected = CASES[name](model).detach().numpy()
    assert found.shape == expected.shape
    assert found.shape == shape_of(weight.expression, [a.shape for a in arrays])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Other spellings of what is tested; the passes leave no call of them here.
ALIKE = {
    *(t for t in VIEWS if t not in (aten.permute.default, aten.slice.Tensor)),
    aten.fill.Scalar,
    aten.full_like.default,
    aten.ones.default,
    aten.ones_like.default,
    aten.zero.default,
    aten.zeros.default,
    aten.zeros_like.default,
}


def test_every_call_of_the_table_is_tested() -> None:
    seen = set().union(*(targets(name) for name in CASES))
    assert not TABLE.keys() - seen - ALIKE


class Attention(nn.Module):
    """Attention within windows, as Swin has it: a bias from a table, and a mask for some windows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(6, 18)
        self.table = nn.Parameter(torch.randn(7, 2))
        self.register_buffer("index", torch.randint(7, (16,)))
        self.register_buffer("mask", torch.randn(3, 4, 4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(-1, 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(4, 4, -1).permute(2, 0, 1).contiguous()
        weights = q @ k.transpose(-2, -1) + bias.unsqueeze(0)
        weights = weights.view(-1, 3, 2, 4, 4) + self.mask[None, :, None]
        weights = weights.view(-1, 2, 4, 4).softmax(-1)
        return weights @ v


def test_terms_are_added_to_each_other() -> None:
    program = check(Attention(), (torch.randn(6, 4, 6),), fold_bn=True)
    (entry,) = (e for e in program.plan.entries if e.expression)
    assert entry.out_shape == (1, 3, 2, 4, 4)
    assert set(entry.sources) == {"table", "index", "constant"} or set(
        entry.sources
    ) == {"table", "index", "mask"}
    assert "index" not in program.source
    assert WeightPlan.from_json(program.plan.to_json()) == program.plan


def test_only_when_asked_for() -> None:
    program = check(Attention(), (torch.randn(6, 4, 6),))
    assert not any(entry.expression for entry in program.plan.entries)
    assert "self.table" in program.source


class Standardised(nn.Conv2d):
    """A convolution whose weight is standardised at each call."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(weight, None, None, training=True, momentum=0.0)
        return self._conv_forward(input, weight.reshape_as(self.weight), self.bias)


class Net(nn.Module):
    """Modules one after the other."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_weights_of_layers() -> None:
    model = Net(Standardised(3, 4, 3), nn.ReLU(), Standardised(4, 5, 2))
    program = check(model, (torch.randn(2, 3, 8, 7),), fold_bn=True)
    assert program.source.count("nn.Conv2d(") == 2
    keys = [e.key for e in program.plan.entries if e.expression]
    assert keys == ["body.0.weight", "body.2.weight"]


def test_weights_of_layers_before_a_batch_norm() -> None:
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    model = Net(Standardised(3, 4, 3, bias=False), norm)
    program = check(model, (torch.randn(2, 3, 8, 7),), fold_bn=True)
    assert [e.key for e in program.plan.entries] == ["body.0.bias", "body.0.weight"]
    assert "BatchNorm" not in program.source


class Tied(nn.Module):
    """A weight that is used as it is, and scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.fc(x), self.fc.weight.exp()) + self.fc.bias


def test_a_weight_that_stays_keeps_its_name() -> None:
    program = check(Tied(), (torch.randn(2, 4),), fold_bn=True)
    keys = {e.key: bool(e.expression) for e in program.plan.entries}
    assert not keys["fc.weight"]
    assert sum(keys.values()) == 1


class Counting(nn.Module):
    """Forward writes to what it computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = x * self.total.exp()
        self.total.add_(1)
        return result


def test_what_forward_writes_is_computed_each_time() -> None:
    program = torch2mlx.compile(Counting(), (torch.randn(2, 3),), fold_bn=True)
    assert not any(entry.expression for entry in program.plan.entries)


def test_large_arrays_are_computed_each_time() -> None:
    model = Weights(lambda s: (s.v[:, None] * torch.ones(1, 1_200_000)).exp())
    captured = capture(model, (torch.ones(1),))
    run(captured)
    fold_parameters(captured)
    assert not captured.folded


def test_another_checkpoint(tmp_path: Path) -> None:
    model = Attention()
    program = torch2mlx.compile(model, (torch.randn(6, 4, 6),), fold_bn=True)
    with torch.no_grad():
        model.table.mul_(1.5)
    state = {
        k: t.bfloat16() if t.is_floating_point() else t
        for k, t in model.state_dict().items()
    }
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    program.save(tmp_path / "out", weights=tmp_path / "other.safetensors")
    saved = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    (entry,) = (e for e in program.plan.entries if e.expression)
    table = state["table"].double()[model.index].view(4, 4, 2).permute(2, 0, 1)
    expected = table[None, None] + model.mask[None, :, None]
    assert saved[entry.key].dtype == torch.bfloat16
    assert torch.equal(saved[entry.key], expected.float().bfloat16())
    with pytest.raises(InputError, match=f"{entry.key}.*compile it without --fold-bn"):
        torch2mlx.to_torch(tmp_path / "out")


def test_too_large_for_half_precision(tmp_path: Path) -> None:
    model = Weights(lambda s: s.a * 1e6)
    program = torch2mlx.compile(model, (torch.ones(1),), fold_bn=True)
    with pytest.raises(InputError, match="cannot be F16"):
        program.save(tmp_path / "out", dtype="float16")
    (entry,) = program.plan.entries
    assert apply(entry, {"a": model.a.detach().numpy()}).dtype == np.float32
