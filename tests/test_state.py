"""Models whose forward writes to buffers, inputs and parts of arrays: three calls as in PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn
from torch.nn import functional

from tests.lowering import to_mlx, to_numpy
from tests.program import compare, compiled
from torch2mlx.api import Program
from torch2mlx.errors import CaptureError

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def call_in_turn(model: nn.Module, *args: torch.Tensor, calls: int = 3) -> Program:
    """Call both models in a row; outputs, inputs and buffers must agree after each call."""
    program = compiled(model, args)
    module, model = program.load(), copy.deepcopy(model)
    kept: list[tuple[Any, np.ndarray]] = []
    for call in range(calls):
        tensors = [tensor * (1 + 0.5 * call) for tensor in args]
        arrays = [to_mlx(tensor) for tensor in tensors]
        with torch.no_grad():
            expected = model(*tensors)
        actual = module(*arrays)
        compare(program, expected, actual, 1e-5)
        for tensor, array in zip(tensors, arrays, strict=True):
            np.testing.assert_allclose(np.array(array), tensor.numpy(), 1e-5, 1e-5)
        compare_buffers(program, model, module)
        found = [array for _, array in tree_flatten(actual)]
        kept += [(array, to_numpy(array)) for array in found]
    for array, before in kept:  # a later call must not change what was returned
        np.testing.assert_array_equal(to_numpy(array), before)
    assert program.verify().ok
    return program


def compare_buffers(program: Program, model: nn.Module, module: Any) -> None:
    arrays: dict = dict(tree_flatten(module.parameters()))
    buffers = dict(model.named_buffers())
    changing = program.captured.state_keys
    entries = [e for e in program.plan.entries if e.sources[0] in changing]
    assert len(entries) == len(changing)
    for entry in entries:
        tensor = buffers[entry.sources[0]]
        assert arrays[entry.key].dtype == to_mlx(tensor).dtype
        np.testing.assert_allclose(
            np.array(arrays[entry.key]), tensor.numpy(), 1e-5, 1e-5
        )


def buffer(module: nn.Module, name: str, *shape: int, **options: Any) -> None:
    module.register_buffer(name, torch.zeros(shape, **options))


class Counter(nn.Module):
    """A counter, a running mean, and the last two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        buffer(self, "count", dtype=torch.int64)
        buffer(self, "mean", 4)
        buffer(self, "last", 2, 4)
        self.register_buffer("previous", torch.zeros(2, 4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.mean.mul_(0.9).add_(x.mean(0) * 0.1)
        self.previous.copy_(self.last)
        self.last.copy_(x)
        return self.fc(x - self.mean) * self.count + self.previous


class Cache(nn.Module):
    """Rows of a cache are written one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(4, 4)
        buffer(self, "cache", 2, 8, 4)
        buffer(self, "position", 1, dtype=torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = self.key(x)
        self.cache[:, 7] = key
        self.cache[:, 1:3] += key[:, None]
        self.cache.index_copy_(1, self.position, key[:, None])
        self.position = self.position + 1
        return (self.cache * key[:, None]).sum(1)


class Assigned(nn.Module):
    """The old array is needed when the buffer has a new one."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "count", 4)
        buffer(self, "total", 4)

    def forward(self, x: torch.Tensor) -> Any:
        old = self.count
        self.count = self.count + 1
        self.count = self.count * 2
        self.total = x.sum(0)
        return x * self.count + old, old


class Swapped(nn.Module):
    """Two buffers change places."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "a", 4)
        self.register_buffer("b", torch.ones(4))

    def forward(self, x: torch.Tensor) -> Any:
        y, old = x * self.a, self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(old + 1)
        return y + self.b, old


class Returned(nn.Module):
    """What is returned stays, though the buffer changes again."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "a", 2, 4)
        buffer(self, "b", 2, 4)

    def forward(self, x: torch.Tensor) -> Any:
        self.a[:, 0] = x[:, 0]
        self.b[:, 1] = x[:, 0]
        self.b.copy_(self.a + self.b)
        return self.a.clone(), x + self.b


class Linked(nn.Module):
    """One buffer is a copy of another one that is written in place."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "a", 2, 4)
        buffer(self, "b", 2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + self.b
        self.a[:, 0] += x[:, 1]
        self.b.copy_(self.a)
        return y


class Statistics(nn.Module):
    """A hand-written norm that always normalises by the batch."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "mean", 4)
        self.register_buffer("var", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.batch_norm(x, self.mean, self.var, training=True)
        return y + self.mean


class Tick(nn.Module):
    """It only counts."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "count")

    def forward(self) -> None:
        self.count += 1


class Ticking(nn.Module):
    """A call without arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.tick, self.fc = Tick(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tick()
        return self.fc(x)


class Twice(nn.Module):
    """One module is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.inner(x))


class ReadFromOutside(nn.Module):
    """The old value is read before the owner runs and used after it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.inner.count * 2
        y = self.inner(x)
        return y * scale + self.inner.mean


class WrittenFromOutside(nn.Module):
    """Another module writes to the buffer, by its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.add, self.fc = Add(), nn.Linear(4, 4)
        buffer(self, "sum", 2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        row = y[0]
        self.add(y)
        self.add(self.sum)
        return self.fc(y + self.sum) + row


class Add(nn.Module):
    """It writes to its argument."""

    def forward(self, x: torch.Tensor) -> None:
        x[:, 1:3] += 1
        x.mul_(2)


class Repeated(nn.Module):
    """Each of several layers counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Counter() for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


MODELS = [
    Counter,
    Cache,
    Assigned,
    Swapped,
    Returned,
    Linked,
    Statistics,
    Ticking,
    Twice,
    ReadFromOutside,
    WrittenFromOutside,
    Repeated,
]


@pytest.mark.parametrize("cls", MODELS)
def test_calls_in_turn(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    call_in_turn(cls(), X)


def test_the_owner_updates_its_buffers() -> None:
    source = compiled(nn.Sequential(Counter(), Cache()), (X,)).source
    for line in (
        "self.count = self.count + 1",
        "self.mean = self.mean * 0.9 + mx.mean(x, axis=0) * 0.1",
        "self.previous = mx.array(self.last)",
        "self.last = mx.array(x)",
        "self.cache[:, 7] = key",
        "self.position = self.position + 1",
    ):
        assert f"        {line}\n" in source
    assert source.count("self.cache[:, 1:3] += ") == 1


def test_else_the_model_does_at_its_end() -> None:
    source = compiled(ReadFromOutside(), (X,)).source
    end = source[: source.index("\n    def sanitize")].rstrip().splitlines()[-2:]
    assert end[0].strip().startswith("self.inner.count = ")
    assert end[1].strip().startswith("return ")


def test_a_layer_of_the_same_class_loops() -> None:
    source = compiled(Repeated(), (X,)).source
    assert "for layer in self.layers:" in source
    assert source.count("class Counter") == 1


def test_the_report_says_so() -> None:
    (note,) = compiled(Ticking(), (X,)).report.notes
    assert note.startswith("forward updates `tick.count`: each call changes the module")
    assert "model.state" in note


def test_under_compile() -> None:
    program = compiled(nn.Sequential(Counter(), Cache()), (X,))
    plain, fast = program.load(), program.load()
    step = mx.compile(fast, inputs=fast.state, outputs=fast.state)
    for _ in range(3):
        assert mx.allclose(step(to_mlx(X)), plain(to_mlx(X)), atol=1e-5).item()
    assert mx.array_equal(fast.layers[0].count, plain.layers[0].count).item()


def test_verify_finds_a_wrong_buffer() -> None:
    program = compiled(Ticking(), (X,))
    program.source = program.source.replace("self.count + 1", "self.count + 2")
    verification = program.verify()
    assert not verification.ok
    labels = [o.label for case in verification.cases for o in case.outputs if not o.ok]
    assert set(labels) == {"buffer tick.count"}
    culprit = verification.culprit
    assert culprit is not None
    assert (culprit.path, culprit.cause) == ("tick", "state")
    assert culprit.statement is not None
    assert culprit.statement.code == "self.count = self.count + 2"


def test_verify_leaves_the_buffers_as_they_are() -> None:
    model = Counter().eval()
    model(X)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert compiled(model, (X,)).verify().ok
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


class WritesInputs(nn.Module):
    """The caller sees what is written."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        x.add_(1)
        y[:, 0] = 5
        old = y.clone()
        y.mul_(2)
        return x * 2, old, x.sum()


class WritesParts(nn.Module):
    """Parts of an input, that is no output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[:, 0] = 5
        x[1] += 2
        return x.sum(1)


class WritesImages(nn.Module):
    """Images are channels-last; what is written back is too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        buffer(self, "mean", 1, 3, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        self.mean.mul_(0.5).add_(y.mean(0, keepdim=True))
        x.mul_(2)
        return self.conv(y + self.mean)


def test_inputs() -> None:
    program = call_in_turn(WritesInputs(), X, X + 1)
    assert "        x[...] = x + 1\n" in program.source
    assert program.report.notes[0].startswith("forward writes to its input `x`, `y`")


def test_parts_of_inputs() -> None:
    source = call_in_turn(WritesParts(), X).source
    assert "        x[:, 0] = 5\n        x[1] += 2\n" in source.replace("5.0", "5")


def test_images() -> None:
    model = WritesImages().eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = compiled(model, (x,))
    module, array = program.load(), to_mlx(x.permute(0, 2, 3, 1))
    with torch.no_grad():
        for _ in range(3):
            expected = model(x)
            compare(program, expected, module(array), 1e-4)
            np.testing.assert_allclose(
                np.array(array), x.permute(0, 2, 3, 1).numpy(), 1e-5, 1e-5
            )
    compare_buffers(program, model, module)
    assert program.verify().ok


class AnotherShape(nn.Module):
    """Its buffer grows."""

    def __init__(self) -> None:
        super().__init__()
        buffer(self, "rows", 2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows = torch.cat([self.rows, x])
        return self.rows.sum(0)


def test_a_buffer_of_another_shape() -> None:
    with pytest.raises(CaptureError, match=r"`rows`[\s\S]*another shape or dtype"):
        compiled(AnotherShape(), (X,))


class Writes(nn.Module):
    """Writes to parts of its own arrays."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        z = x * 2
        z[:, 1:3] += y
        z[0] = 1
        kept = z + 0
        part = z[1:]
        part[:, 1:][..., :2] *= 3
        z[:, 0] = x[:, 1]
        copied = x.clone()
        copied[torch.tensor([0, 1]), torch.tensor([1, 3])] = y[0]
        copied.index_put_((torch.tensor([0, 0]),), x[:2], accumulate=True)
        copied[x > 1] = 7
        copied.masked_fill_(x < -1, 4)
        return z, part, kept, copied


def test_writes_to_parts() -> None:
    program = call_in_turn(Writes(), X, X[:, :2])
    assert "z[:, 1:3] += y\n" in program.source
    assert "z[0] = 1.0\n" in program.source
    assert "assign(" not in program.source


def test_an_argument_is_copied_before_it_is_written() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[:, 0] = 3
            return y

    source = call_in_turn(Model(), X).source
    assert "= mx.array(x)\n" in source


def test_what_a_module_may_return_is_copied() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.drop(self.fc(x))
            z = y.clone()
            z[:, 0] = 1
            return y, z

    call_in_turn(Same(), X)


def test_gradients_pass_writes() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 1:3] *= x[:, :2]
            y[0] = y[1] * 3
            return y

    module = compiled(Model(), (X,)).load()
    x = X.clone().requires_grad_()
    Model()(x).square().sum().backward()
    assert x.grad is not None
    grad = mx.grad(lambda a: mx.sum(mx.square(module(a))))(to_mlx(X))
    np.testing.assert_allclose(np.array(grad), x.grad.numpy(), 1e-4, 1e-4)
