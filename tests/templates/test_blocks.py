"""The hand-written blocks against their PyTorch equivalents, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten, tree_unflatten
from torch import nn

from torch2mlx.templates import MLP, ConvBlock, ConvStack, TransformerBlock


def _stored(tensor: torch.Tensor) -> mx.array:
    """Kernels and images channels-last."""
    tensor = tensor.detach()
    return mx.array(
        (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()
    )


def check(
    block: mlx.nn.Module,
    reference: nn.Module,
    names: Callable[[str], str],
    x: torch.Tensor,
    mask: tuple[Any, dict[str, Any]] = (None, {}),
) -> None:
    """Same values and same gradients of all parameters, in training mode where both are."""
    for name, buffer in reference.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer)
    state = {
        names(name): _stored(tensor)
        for name, tensor in reference.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    block.load_weights(list(state.items()), strict=True)
    block.train(reference.training)
    ours, theirs = mask
    call = [] if ours is None else [ours]

    wanted = reference(x, **theirs)
    wanted.square().mean().backward()

    def loss(parameters: Any) -> mx.array:
        block.update(parameters)
        return block(_stored(x), *call).square().mean()

    found = block(_stored(x), *call)
    _close(found, _stored(wanted))
    block.load_weights(list(state.items()), strict=True)
    gradients = dict(tree_flatten(mx.grad(loss)(block.trainable_parameters())))
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        _close(gradients.pop(names(name)), _stored(parameter.grad))
    assert not gradients


def _close(found: mx.array, wanted: mx.array) -> None:
    assert found.shape == wanted.shape
    allowed = 1e-4 + 1e-3 * float(mx.abs(wanted).max())
    np.testing.assert_allclose(np.array(found), np.array(wanted), rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("gelu_tanh", nn.GELU(approximate="tanh")),
        ("silu", nn.SiLU()),
        ("tanh", nn.Tanh()),
        ("sigmoid", nn.Sigmoid()),
        ("identity", nn.Identity()),
    ],
)
def test_mlp(name: str, activation: nn.Module) -> None:
    reference = nn.Sequential(
        nn.Linear(5, 7), activation, nn.Linear(7, 6), activation, nn.Linear(6, 2)
    )
    places = {"0": "layers.0", "2": "layers.1", "4": "layers.2"}
    check(
        MLP([5, 7, 6, 2], name),
        reference,
        lambda key: f"{places[key[0]]}{key[1:]}",
        3 * torch.randn(3, 4, 5),
    )


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", ["no", "causal", "some"])
def test_transformer_block(norm_first: bool, bias: bool, masked: str) -> None:
    reference = nn.TransformerEncoderLayer(
        12,
        3,
        20,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-3,
        batch_first=True,
        norm_first=norm_first,
        bias=bias,
    )
    for name, parameter in reference.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter)
    allowed = torch.rand(7, 7) > 0.4
    allowed.fill_diagonal_(True)
    causal = torch.ones(7, 7).tril() == 1
    masks: dict[str, tuple[Any, dict[str, Any]]] = {
        "no": (None, {}),
        "causal": ("causal", {"src_mask": ~causal}),
        "some": (mx.array(allowed.numpy()), {"src_mask": ~allowed}),
    }
    block = TransformerBlock(
        12, 3, 20, norm_first, activation="gelu", eps=1e-3, bias=bias
    )
    check(
        block,
        reference,
        lambda key: key.replace("in_proj_", "in_proj."),
        torch.randn(2, 7, 12),
        masks[masked],
    )


def _conv(inner: int, outer: int, kernel: int, stride: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(),
    )


def _of_block(key: str) -> str:
    return key.replace("0.", "conv.", 1).replace("1.", "norm.", 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_block(training: bool, groups: int) -> None:
    reference = _conv(4, 6, 5, 2, groups).train(training)
    block = ConvBlock(4, 6, 5, 2, groups=groups)
    check(block, reference, _of_block, torch.randn(2, 4, 9, 11))


def test_conv_block_without_a_norm() -> None:
    reference = nn.Sequential(nn.Conv2d(3, 5, 3, padding=0), nn.SiLU()).eval()
    block = ConvBlock(3, 5, padding=0, norm=False, activation="silu")
    check(block, reference, _of_block, torch.randn(2, 3, 6, 8))


def test_conv_stack() -> None:
    layers = [_conv(3, 4, 3, 1, 1), _conv(4, 6, 3, 2, 1), _conv(6, 5, 3, 2, 1)]

    def names(key: str) -> str:
        number, _, rest = key.partition(".")
        return f"blocks.{number}.{_of_block(rest)}"

    x = torch.randn(2, 3, 12, 16)
    check(ConvStack([3, 4, 6, 5]), nn.Sequential(*layers).eval(), names, x)


def test_blocks_train() -> None:
    mx.random.seed(0)
    model = mlx.nn.Sequential(
        ConvStack([1, 4, 4]),
        lambda x: x.reshape(x.shape[0], -1, 4),
        TransformerBlock(4, 2, dropout=0.1),
        lambda x: x.mean(1),
        MLP([4, 8, 2], dropout=0.1),
    )
    x = mx.random.normal((16, 6, 6, 1))
    y = (x.mean((1, 2, 3)) > 0).astype(mx.int32)
    optimizer = mlx.optimizers.Adam(1e-2)

    def loss(model: mlx.nn.Module) -> mx.array:
        return mlx.nn.losses.cross_entropy(model(x), y, reduction="mean")

    step = mlx.nn.value_and_grad(model, loss)
    losses = []
    for _ in range(60):
        value, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="input and output at least"):
        MLP([3])
    with pytest.raises(ValueError, match="input and output at least"):
        ConvStack([3])
    with pytest.raises(ValueError, match="no activation 'swish'"):
        ConvBlock(3, 4, activation="swish")
    with pytest.raises(ValueError, match="5 heads do not divide 12"):
        TransformerBlock(12, 5)


def test_parameters_can_be_replaced() -> None:
    block = MLP([2, 3])
    zeros = [(key, mx.zeros_like(x)) for key, x in tree_flatten(block.parameters())]
    block.update(tree_unflatten(zeros))
    assert block(mx.ones((1, 2))).tolist() == [[0, 0, 0]]
