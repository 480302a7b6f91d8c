"""`torch.compile(model, backend="mlx")` against the model itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import declare_torchvision_ops
from torch2mlx import dynamo


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def in_mlx(graph: torch.fx.GraphModule, example: Sequence[Any]) -> Callable[..., Any]:
    """The backend, where a graph that runs in PyTorch is an error."""
    run = dynamo.mlx_backend(graph, example)

    def strict(*values: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return run(*values)

    return strict


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.dtype == wanted.dtype
    allowed = 1e-4 + 1e-3 * wanted.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=0, atol=allowed)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.drop(torch.relu(self.norm(self.conv(x)))).mean((2, 3))
        return self.fc(y), y.argmax(1)


def test_other_sizes_and_weights() -> None:
    net = Net().eval()
    compiled = torch.compile(net, backend=in_mlx)
    with torch.no_grad():
        for shape in [(2, 3, 8, 9), (1, 3, 8, 9), (3, 3, 7, 12)]:
            x = torch.randn(shape)
            (y, index), (want, want_index) = compiled(x), net(x)
            assert_close(y, want)
            assert torch.equal(index, want_index)
        net.fc.weight.mul_(3)  # in place, as an optimizer does
        assert_close(compiled(x)[0], net(x)[0])
        net.fc.weight.data.mul_(2)  # which no version counter shows
        assert_close(compiled(x)[0], net(x)[0])
        net.fc.weight.data = torch.randn(5, 4)
        assert_close(compiled(x)[0], net(x)[0])
        net.fc = nn.Linear(4, 5)
        assert_close(compiled(x)[0], net(x)[0])


def test_it_is_a_backend_by_name() -> None:
    assert "mlx" in torch._dynamo.list_backends()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_dtypes(dtype: torch.dtype) -> None:
    x = torch.arange(-6, 6).reshape(3, 4).to(dtype)

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2 - x[:, :1]

    y = torch.compile(double, backend=in_mlx)(x)
    assert y.dtype == dtype
    assert torch.equal(y, double(x))


def sorted_complex(x: torch.Tensor) -> torch.Tensor:
    return torch.lu_unpack(*torch.linalg.lu_factor(torch.complex(x, x)))[1]


@pytest.mark.parametrize(
    ("function", "x", "why"),
    [
        (lambda x: x + 1, torch.ones(2, dtype=torch.float64), "float64"),
        (lambda x: nn.functional.dropout(x, 0.5, True), torch.ones(4), "random"),
        (lambda x: x.add_(1), torch.ones(2), "writes to its inputs"),
        (lambda x: x * 2, torch.ones(2, requires_grad=True), "gradients are needed"),
        (sorted_complex, torch.eye(3), "linalg_lu_factor"),
    ],
    ids=["float64", "dropout", "in place", "gradients", "not mapped"],
)
def test_runs_in_pytorch_with_a_warning(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, why: str
) -> None:
    torch.manual_seed(3)
    want = function(x.clone() if not x.requires_grad else x)
    torch.manual_seed(3)
    compiled = torch.compile(function, backend=dynamo.mlx_backend)
    given = x.clone() if not x.requires_grad else x
    with pytest.warns(UserWarning, match=f"runs in PyTorch: .*{why}"):
        found = compiled(given)
    assert torch.equal(found, want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it says so once
        compiled(given)
    if x.requires_grad:
        found.sum().backward()
        assert torch.equal(x.grad, torch.full((2,), 2.0))


@pytest.mark.slow
def test_resnet_18_is_one_graph(torchvision_models: Any) -> None:
    model = torchvision_models.resnet18(num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(torch.compile(model, backend=in_mlx)(x), model(x))
        assert torch._dynamo.explain(model)(x).graph_break_count == 0


def test_bert_is_one_graph() -> None:
    declare_torchvision_ops()  # transformers imports it
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertModel(BertConfig(vocab_size=99, intermediate_size=37, **sizes)).eval()
    tokens = torch.randint(0, 99, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, 5:] = 0
    with torch.no_grad():
        compiled = torch.compile(model, backend=in_mlx)
        found, wanted = (f(tokens, attention_mask=mask) for f in (compiled, model))
        assert_close(found.last_hidden_state, wanted.last_hidden_state)
        assert_close(found.pooler_output, wanted.pooler_output)
        explained = torch._dynamo.explain(model)(tokens, attention_mask=mask)
    assert explained.graph_break_count == 0
