"""Branches and loops on values: torch.cond, while_loop, map and scan, as Python statements."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch._higher_order_ops import map as map_rows
from torch._higher_order_ops import scan, while_loop

from tests.program import check, compare, run
from torch2mlx.api import Program
from torch2mlx.errors import UnsupportedError

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) + 1
Y = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
ZERO = torch.zeros((), dtype=torch.int64)


def check_all(model: nn.Module, *args: torch.Tensor) -> Program:
    """Compare for inputs of both signs, of another size, and by `verify`."""
    negative = tuple(-arg for arg in args)
    longer = tuple(torch.cat([arg, -arg, arg]) for arg in args)
    program = check(model, args, negative, longer)
    verification = program.verify()
    assert verification.ok, verification.lines()
    return program


def body_of(program: Program, cls: str) -> str:
    """The `__call__` of a class, dedented, without checks of sizes."""
    source = program.source[program.source.index(f"class {cls}(nn.Module)") :]
    call = source[source.index("    def __call__") :]
    call = re.split(r"\n\n(?=\S|    def )", call)[0]
    lines = call[call.index(":\n") + 2 :].splitlines()
    return "\n".join(line[8:] for line in lines)


class Block(nn.Module):
    """A layer with an activation, around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(x)) + x


class Choice(nn.Module):
    """Layers, and a tensor from outside, in both branches."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = x * 2

        def left(x: torch.Tensor) -> torch.Tensor:
            return self.block(x) + double

        def right(x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

        y = torch.cond(x.sum() > 0, left, right, (x,))
        return y + 1


class Choices(nn.Module):
    """The same class twice, and its modules outside of the branches too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Choice(), Choice()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + self.first.block(x)


def test_branches() -> None:
    program = check_all(Choice(), X)
    assert body_of(program, "Choice") == """\
if (mx.sum(x) > 0).item():
    y = self.block(x) + x * 2
else:
    y = x
    for layer in self.blocks:
        y = layer(y)
return y + 1"""
    keys = {entry.key for entry in program.plan.entries}
    assert keys == set(Choice().state_dict())
    assert any("mx.compile cannot compile it" in n for n in program.report.notes)


def test_branches_in_modules() -> None:
    program = check_all(Choices(), X)
    assert program.source.count("class Choice(") == 1


class Nested(nn.Module):
    """A branch in a branch, two results each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        def positive(x: torch.Tensor) -> Any:
            return torch.relu(self.a(x)), x * 2

        def negative(x: torch.Tensor) -> Any:
            return torch.tanh(self.b(x)), x * 3

        def outer(x: torch.Tensor, y: torch.Tensor) -> Any:
            u, v = torch.cond(y.mean() > 0, positive, negative, (x,))
            return u + v, u * 2

        def other(x: torch.Tensor, y: torch.Tensor) -> Any:
            return x - y, y.clone()

        p, q = torch.cond(x.sum() > 0, outer, other, (x, y))
        return p * q, q


def test_nested_branches() -> None:
    program = check_all(Nested(), X, Y)
    for x, y in ((X, -Y), (-X, Y)):
        with torch.no_grad():
            expected = program.model(x, y)
        compare(program, expected, run(program, program.load(), (x, y)), 1e-5)
    body = body_of(program, "Nested").partition("must be [B, 4]")[2]
    assert body.count("if ") == 2


class Experts(nn.Module):
    """Modules themselves are the branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a = Block()
        self.b = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.mean() > 0.5, self.a, self.b, (x,)) + self.a(x)


def test_modules_as_branches() -> None:
    assert "self.a(x)" in body_of(check_all(Experts(), X), "Experts")


class Layer(nn.Module):
    """A branch in each of several layers, whose widths differ."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 4)
        self.drop = nn.Dropout(0.1)
        self.gate = nn.Parameter(torch.full((4,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def wide(x: torch.Tensor) -> torch.Tensor:
            return self.down(self.drop(torch.relu(self.up(x)))) * self.gate

        def narrow(x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

        return (x + torch.cond(x.mean() > 0.6, wide, narrow, (x,))) * self.gate


class Layers(nn.Module):
    """Also counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(8), Layer(8), Layer(6)])
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = torch.cond(
            x.sum() > 0, lambda n: n + 1, lambda n: n - 1, (self.count,)
        )
        for layer in self.layers:
            x = layer(x)
        return x * self.count


def test_layers_with_branches() -> None:
    torch.manual_seed(0)
    program = check_all(Layers(), X)
    assert "for layer in self.layers:" in body_of(program, "Layers")
    assert program.source.count("class Layer(") == 1
    assert "self.count = " in body_of(program, "Layers")


class OneUsed(nn.Module):
    """Results that nothing takes are left out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, b = torch.cond(
            x.sum() > 0, lambda x: (x + 1, x * 2), lambda x: (x - 1, x * 3), (x,)
        )
        return b


class Constants(nn.Module):
    """Constants and parts of arrays are written in a branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def scaled(x: torch.Tensor) -> torch.Tensor:
            y = x * torch.tensor([1.0, 0.0, 2.0, 3.0])
            y[:, 0] = 7
            y[:, 1:3] += x[:, :2]
            return y

        return torch.cond(x.sum() > 0, scaled, lambda x: x + torch.arange(4.0), (x,))


class Widths(nn.Module):
    """Sizes are read in a branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def left(x: torch.Tensor) -> torch.Tensor:
            y = torch.cat([x, x], 1)
            turned = y.reshape(y.shape[1], y.shape[0])
            return turned.sum(0)[:, None] * y[:, :2]

        z = torch.cond(x.sum() > 0, left, lambda x: x[:, :2] * 2, (x,))
        return z.reshape(x.shape[0] * 2) / x.shape[0]


class OfSizes(nn.Module):
    """A branch by the size of the input needs no evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.shape[0] > 4, lambda x: x * 2, lambda x: x - 1, (x,))


class OldView(nn.Module):
    """A branch reads a view whose base was written before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        row = y[0]
        y.add_(1)
        z = torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v * 3, (row,))
        return z + row


@pytest.mark.parametrize("cls", [OneUsed, Constants, Widths, OfSizes, OldView])
def test_more_branches(cls: type[nn.Module]) -> None:
    program = check_all(cls(), X)
    assert bool(program.report.notes) == (cls is not OfSizes)


class Images(nn.Module):
    """Both branches convolve."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def left(x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.a(x))

        return torch.cond(x.sum() > 0, left, lambda x: self.b(x) * 2, (x,))


def test_images() -> None:
    program = check(Images(), (torch.rand(2, 3, 8, 8),), (-torch.rand(2, 3, 8, 8),))
    assert "transpose" not in body_of(program, "Images")


class Repeat(nn.Module):
    """A counter, a layer and a tensor from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        scale = x * 2

        def more(i: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return i < 3

        def step(i: torch.Tensor, y: torch.Tensor) -> Any:
            z = self.fc(y)
            return i + 1, z * scale

        i, y = while_loop(more, step, (torch.zeros((), dtype=torch.int64), x))
        return y + i, x


def test_while() -> None:
    program = check_all(Repeat(), X)
    assert body_of(program, "Repeat").partition("return")[0] == """\
if x.shape[1] != 4:
    raise ValueError(f"x must be [B, 4], not {list(x.shape)}")
scale = x * 2
i = mx.zeros((), dtype=mx.int64)
y = x
while (i < 3).item():
    i = i + 1
    y = self.fc(y) * scale
"""


class Until(nn.Module):
    """The test takes several statements; there may be no round at all."""

    def forward(self, x: torch.Tensor) -> Any:
        def more(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
            half = x * 0.5
            return (half + half * half).sum() < 100

        def step(x: torch.Tensor, n: torch.Tensor) -> Any:
            return x * 2 + n, n + 1

        y, n = while_loop(more, step, (x * 100, torch.zeros(())))
        z, m = while_loop(more, step, (x, torch.zeros(())))
        return y, n, z, m


class Swapping(nn.Module):
    """Each variable becomes the other one."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        def step(i: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
            return i + 1, b.clone(), a + b

        _, a, b = while_loop(lambda i, a, b: i < 5, step, (ZERO, x, y))
        return a, b


class Inner(nn.Module):
    """Loops, a branch and writes in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        base = x * 2
        base[0] = 1

        def step(i: torch.Tensor, v: torch.Tensor) -> Any:
            _, w = while_loop(
                lambda j, w: j < 2, lambda j, w: (j + 1, w * 1.1 + x), (ZERO, v)
            )
            w = torch.cond(w.sum() > 0, lambda w: self.fc(w) - 1, torch.abs, (w,))
            part = base.clone()
            part[1] += w[0]
            rows = map_rows(lambda r: r.sum() + r, w)
            return i + 1, rows * 0.1 + part

        i, v = while_loop(lambda i, v: i < 3, step, (ZERO, x))
        return v + base, i


@pytest.mark.parametrize(
    ("cls", "count"), [(Until, 1), (Swapping, 2), (Inner, 1)], ids=str
)
def test_more_loops(cls: type[nn.Module], count: int) -> None:
    torch.manual_seed(0)
    check_all(cls(), *(X, Y)[:count])


class Rows(nn.Module):
    """A layer for each row, with a tensor from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[0] * 2

        def of_row(row: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.fc(row)) + first

        return map_rows(of_row, x)


def test_map() -> None:
    program = check_all(Rows(), X)
    assert body_of(program, "Rows").partition("outputs")[2] == """\
 = []
for x_i in x:
    outputs.append(mx.tanh(self.fc(x_i)) + first)
return mx.stack(outputs)"""
    assert not any("mx.compile" in note for note in program.report.notes)


class Pairs(nn.Module):
    """Two sequences, two results."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        def of_rows(rows: Any) -> Any:
            a, b = rows
            return a * b, (a - b).sum(0)

        return map_rows(of_rows, (x, y))


class Recurrent(nn.Module):
    """A cell of PyTorch's over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, x_t: torch.Tensor) -> Any:
            h = self.cell(x_t[None], h)
            return h, h[0] * 2

        h, ys = scan(step, torch.zeros(1, 4), x, dim=0)
        return h, ys


def test_scan() -> None:
    program = check_all(Recurrent(), X)
    assert body_of(program, "Recurrent") == """\
if x.shape[1] != 4:
    raise ValueError(f"x must be [B, 4], not {list(x.shape)}")
h = mx.zeros((1, 4))
outputs = []
for x_i in x:
    h = self.cell(x_i[None], h)
    outputs.append(h[0] * 2)
return h, mx.stack(outputs)"""


class Backwards(nn.Module):
    """Two variables and two sequences, from the end."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        def step(state: Any, rows: Any) -> Any:
            (h, c), (a, b) = state, rows
            return (h + a, c * b), torch.stack([h * a, c])

        start = (x[0] * 0, x[0] * 0 + 1)
        return scan(step, start, (x, y), dim=0, reverse=True)


@pytest.mark.parametrize("cls", [Pairs, Backwards])
def test_several_sequences(cls: type[nn.Module]) -> None:
    assert "zip(" in check_all(cls(), X, Y).source


class WritesOutside(nn.Module):
    """A branch writes to what is made before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def left(y: torch.Tensor) -> torch.Tensor:
            y.add_(1)
            return y.sum()

        y = x * 2
        return torch.cond(x.sum() > 0, left, lambda y: y.sum(), (y,)) + y


class Numbers(nn.Module):
    """A loop counts with a Python number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 2), (0, x))[1]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (WritesOutside, r"y\.add_\(1\)\n.*writes, in a branch or a loop"),
        (Numbers, r"while_loop\(lambda[\s\S]*Python number"),
    ],
)
def test_refused(cls: type[nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message), torch.no_grad():
        check(cls(), (X,))
