"""In-place operators, views and what they share, bit for bit against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.aten import check, ops
from torch2mlx.errors import UnsupportedError
from torch2mlx.passes.functionalise import functionalise
from torch2mlx.passes.inline import inline

Function = Callable[..., Any]


def functionalised(function: Function, *shape: int) -> Any:
    """The graph of `function` after the pass, which has no in-place call left."""
    captured = check(
        (inline, functionalise), function, (torch.randn(*(shape or (4, 6))),)
    )
    for node in captured.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        assert schema is None or not schema.is_mutable
    return captured


def writes_to_itself(x: Any) -> Any:
    y = x * 2
    y.relu_()
    return y + 1


def writes_and_reads_the_base(x: Any) -> Any:
    y = x * 2
    v = y[:, 1:3]
    v.add_(1)
    return y, v


def other_views_see_it(x: Any) -> Any:
    y = x * 2
    rows, flat, turned = y[1:], y.reshape(-1), y.t()
    y[:, 0].mul_(-3)
    return rows, flat, turned, y


def chain_of_views(x: Any) -> Any:
    y = x * 2
    y.t()[2:].unsqueeze(0)[0, 1].fill_(7.0)
    return y


def views_written_in_turn(x: Any) -> Any:
    y = x.clone()
    a, b = y[:1], y[:3]
    a.mul_(2)
    b.add_(1)
    a.sub_(b[2:])
    return y, a, b


def a_view_made_after_a_write(x: Any) -> Any:
    y = x + 1
    y.neg_()
    v = y[1]
    y.mul_(3)
    v.add_(1)
    return v, y[1], y


def result_of_the_call(x: Any) -> Any:
    y = x * 1
    z = y.add_(1)
    z.mul_(2)
    return y, z


def parts(x: Any) -> Any:
    y = x * 2
    a, b = y.chunk(2, 1)
    first, *_, last = y.unbind(0)
    c = torch.split(y, [1, 5], 1)[1]
    a.add_(1)
    last.zero_()
    c.mul_(2)
    b.clamp_(min=0)
    return first, last, a, b, c, y


def diagonals(x: Any) -> Any:
    y = x * 2
    y.diagonal(1).fill_(0.5)
    return y


def narrowed(x: Any) -> Any:
    y = x * 2
    y.narrow(1, 2, 3).exp_()
    torch.movedim(y, 0, 1)[0].zero_()
    y.view(2, 2, 6)[1].permute(1, 0).mul_(2)
    y.unflatten(1, (2, 3))[:, 1].neg_()
    y.flatten()[3:9].neg_()
    return y


def strided(x: Any) -> Any:
    y = x * 2
    y[::2, 1::3] = -1
    y[1:] = x[:-1]
    y[0] = x[0, 0]
    return y


def advanced(x: Any) -> Any:
    y = x * 2
    y[x > 0] = 0.0
    y[torch.tensor([0, 2]), torch.tensor([1, 3])] = torch.tensor([8.0, 9.0])
    y.index_add_(0, torch.tensor([1, 1]), x[:2])
    y.masked_fill_(x < -1, 4.0)
    y.scatter_(1, torch.tensor([[0, 1]] * 4), 2.0)
    return y


def other_dtype(x: Any) -> Any:
    y = torch.zeros(4, 6, dtype=torch.float16)
    y.add_(x)
    y[0] = x[0]
    z = torch.zeros(6, dtype=torch.int64)
    z[:] = x[0]
    return y, z


def no_copies(x: Any) -> Any:
    y = x * 2
    a, b, c = y.contiguous(), y.to(torch.float32), functional.dropout(y, 0.5, False)
    y.expand(4, 6).add_(1)
    return a, b, c


def real_copies(x: Any) -> Any:
    y = x * 2
    a, b, c = y.clone(), y.to(torch.float64), y.t().contiguous()
    d = y.t().reshape(-1)
    y.add_(1)
    return a, b, c, d, y


def metadata(x: Any) -> Any:
    y = x * 2
    z = y[1:]
    y.unsqueeze_(0).transpose_(1, 2)
    y.squeeze_(0)
    y[2].add_(10)
    return y, z


def outputs(x: Any) -> Any:
    y = torch.empty(4, 6)
    torch.mul(x, 2, out=y)
    torch.add(x[0], y[1], alpha=2, out=y[2])
    return y


def reads_a_view_after_its_base(x: Any) -> Any:
    y = x * 2
    v = y[1:3]
    y[:, 2] += 5
    total = v.sum(0)
    v[0, 1:4] -= total[1:4]
    return v, total, y


def overlapping_views(x: Any) -> Any:
    y = x + 0.5
    a, b = y[:, :4], y[:, 2:]
    a.mul_(2)
    b.sub_(a.clone())
    a[1:][:, 1:3] = b[1:, :2].clone()
    b[0][1:3].neg_()
    return a.clone(), b.clone(), y


def a_function_writes_its_argument(x: Any) -> Any:
    def clear(part: Any) -> None:
        part[:2] = 0
        part *= 3

    y = x * 2
    clear(y)
    clear(y[1:])
    clear(y.t())
    return y


def accumulated(x: Any) -> Any:
    y = x * 2
    index = torch.tensor([0, 2, 0])
    y.index_put_((index,), x[:3], accumulate=True)
    y.index_put_((index, torch.tensor([1, 1, 1])), x[0, :3])
    y.index_put_((x > 1,), torch.tensor(9.0))
    y[:, 2:4].index_put_((x[:, 2:4] < 0,), torch.tensor(-9.0))
    return y


def as_complex(x: Any) -> Any:
    y = torch.view_as_complex((x * 2).view(4, 3, 2))
    y[:, 0] = 2
    z = torch.view_as_real(y)
    z[..., 1].neg_()
    return z


def augmented(x: Any) -> Any:
    y = x * 2
    y += x
    y[:, 1] *= 3
    y //= 2
    y **= 2
    y[1:3, ::2] -= 1
    return y


def aliased_arguments(x: Any) -> Any:
    y = x * 2
    y[:1].add_(y[1:2])
    y.copy_(y.flip(0))
    y[:2].copy_(y[2:])
    return y


def dead_writes(x: Any) -> Any:
    y = x * 2
    z = y.clone()
    z.add_(1)
    y[0].add_(1).mul_(2)
    return y


CASES = [
    writes_to_itself,
    writes_and_reads_the_base,
    other_views_see_it,
    chain_of_views,
    views_written_in_turn,
    a_view_made_after_a_write,
    result_of_the_call,
    parts,
    diagonals,
    narrowed,
    strided,
    advanced,
    other_dtype,
    no_copies,
    real_copies,
    metadata,
    outputs,
    reads_a_view_after_its_base,
    overlapping_views,
    a_function_writes_its_argument,
    accumulated,
    as_complex,
    augmented,
    aliased_arguments,
    dead_writes,
]


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_aliasing(function: Function) -> None:
    functionalised(function)
    check((inline, functionalise), function, (torch.randn(4, 6),), dynamic=False)


def test_before_and_after() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        y[0].add_(1)
        return y

    captured = functionalised(function)
    assert list(ops(captured)) == ["mul", "select", "add", "select_scatter"]
    *_, mul, _, _, scatter, output = captured.graph.nodes
    assert scatter.args[0] is mul
    assert output.args[0] == (scatter,)


def test_an_augmented_assignment_writes_once() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        y[1:3, ::2] += 1
        return y

    scattered = [name for name in ops(functionalised(function)) if "scatter" in name]
    assert scattered == ["slice_scatter"]
    assert ops(functionalised(function))["slice_scatter"] == 2  # one for each axis


def test_in_place_activations_of_a_module() -> None:
    model = nn.Sequential(
        nn.Linear(6, 5),
        nn.ReLU(True),
        nn.Linear(5, 5),
        nn.Hardtanh(inplace=True),
        nn.Dropout(0.1, True),
    ).eval()
    captured = check(
        (functionalise,), model, (torch.randn(3, 6),), (torch.randn(5, 6),)
    )
    assert {"relu", "hardtanh", "dropout"} <= set(ops(captured))
    relu = next(n for n in captured.graph.nodes if "relu" in n.name)
    assert [path for path, _ in relu.meta["nn_module_stack"].values()] == ["", "1"]
    assert ("2", "input") in relu.meta["forward_args"]


def test_varying_sizes() -> None:
    def function(x: Any) -> Any:
        y = torch.zeros(x.shape[0], x.shape[1] + 1)
        y[:, 1:] = x
        y[:, : x.shape[1] - 1].mul_(2)
        return y

    check((functionalise,), function, (torch.randn(4, 6),), (torch.randn(3, 9),))


class WithParameter(nn.Module):
    """Its forward trains it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.count.add_(1)
        return x + self.count


class WithSharedBuffer(nn.Module):
    """Its buffer has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("other", self.count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.other


def writes_a_diagonal(x: Any) -> Any:
    return (x * 2).fill_diagonal_(1)


def writes_through_an_expansion(x: Any) -> Any:
    y = x[:1] * 2
    y.expand(4, 6)[1].add_(1)
    return y


def writes_to_joined_views(x: Any) -> Any:
    a, b = torch.broadcast_tensors(x * 2, x * 3)
    a.add_(1)
    return a, b


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WithParameter(), "forward writes to the parameter `count`"),
        (WithSharedBuffer(), "which is also known by another name"),
        (writes_a_diagonal, "fill_diagonal_.*has no functional form"),
        (writes_through_an_expansion, "view made by aten.expand.default"),
        (writes_to_joined_views, "aten.broadcast_tensors.default views together"),
    ],
)
def test_refused(model: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=f"(?s){message}"):
        check((functionalise,), model, (torch.randn(4, 6),), dynamic=False)


def test_a_write_to_one_of_several_results() -> None:
    def function(x: Any) -> Any:
        values, indices = x.topk(2, dim=-1)
        values /= values.sum(-1, keepdim=True)
        return values, indices

    check((functionalise,), function, (torch.rand(3, 5),))
