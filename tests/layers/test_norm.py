"""Normalisation layers against PyTorch, with every constructor argument changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import lowered, run_lowered


def shaken(model: nn.Module) -> nn.Module:
    """Weights and statistics that show when they are dropped or swapped."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


@pytest.mark.parametrize(
    ("cls", "shape"),
    [
        (nn.BatchNorm1d, (3, 4)),
        (nn.BatchNorm1d, (3, 4, 5)),
        (nn.BatchNorm2d, (3, 4, 5, 6)),
        (nn.BatchNorm3d, (3, 4, 2, 5, 6)),
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"eps": 0.1}, {"momentum": 0.3}, {"affine": False}]
)
def test_batch_norm(cls: type, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    model = shaken(cls(4, **options))
    x = torch.randn(shape)
    run_lowered(model, (x,), (torch.randn(2, *shape[1:]),))
    assert lowered(model, (x,)).layers == {"BatchNorm": 1}


def test_batch_norm_keeps_momentum() -> None:
    graph = lowered(nn.BatchNorm1d(4, momentum=0.3), (torch.randn(3, 4),)).graph
    (node,) = (n for n in graph.nodes if n.op == "call_module")
    assert node.meta["layer"].kwargs == {"momentum": 0.3}


def test_batch_norm_without_statistics_is_no_layer() -> None:
    model = shaken(nn.BatchNorm2d(4, track_running_stats=False))
    x = torch.randn(3, 4, 5, 6)
    run_lowered(model, (x,))
    assert not lowered(model, (x,)).layers


@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 0.1}, {"bias": False}, {"elementwise_affine": False}],
)
def test_layer_norm(options: dict[str, Any]) -> None:
    model = shaken(nn.LayerNorm(6, **options))
    x = torch.randn(3, 5, 6)
    run_lowered(model, (x,), (torch.randn(2, 4, 6),))
    assert lowered(model, (x,)).layers == {"LayerNorm": 1}


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"elementwise_affine": False}])
def test_norms_over_several_axes_are_no_layers(options: dict[str, Any]) -> None:
    x = torch.randn(3, 5, 6)
    for cls in (nn.LayerNorm, nn.RMSNorm):
        model = shaken(cls((5, 6), **options))
        run_lowered(model, (x,), (torch.randn(2, 5, 6),))
        assert not lowered(model, (x,)).layers


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}])
def test_rms_norm(options: dict[str, Any]) -> None:
    model = shaken(nn.RMSNorm(6, **options))
    run_lowered(model, (torch.randn(3, 5, 6) / 1000,))
    assert lowered(model, (torch.randn(3, 5, 6),)).layers == {"RMSNorm": 1}


def test_rms_norm_without_a_weight_is_no_layer() -> None:
    model = nn.RMSNorm(6, elementwise_affine=False)
    run_lowered(model, (torch.randn(3, 6),))
    assert not lowered(model, (torch.randn(3, 6),)).layers


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm(groups: int, options: dict[str, Any]) -> None:
    model = shaken(nn.GroupNorm(groups, 6, **options))
    for shape in ((3, 6), (3, 6, 5), (3, 6, 4, 5)):
        x = torch.randn(shape)
        # A group of one number is its bias plus whatever rounding leaves of 0 / sqrt(eps).
        run_lowered(model, (x,), (torch.randn(2, *shape[1:]),), tolerance=1e-4)
        assert lowered(model, (x,)).layers == {"GroupNorm": 1}


def test_group_norm_without_weights() -> None:
    run_lowered(nn.GroupNorm(2, 6, affine=False, eps=0.1), (torch.randn(3, 6, 4, 5),))


@pytest.mark.parametrize("options", [{"affine": True}, {"eps": 0.1}, {}])
def test_instance_norm(options: dict[str, Any]) -> None:
    model = shaken(nn.InstanceNorm2d(4, **options))
    run_lowered(model, (torch.randn(3, 4, 5, 6),), (torch.randn(2, 4, 7, 6),))


def test_instance_norm_with_weights_is_a_layer() -> None:
    x = torch.randn(3, 4, 5, 6)
    layers = lowered(nn.InstanceNorm2d(4, affine=True), (x,)).layers
    assert layers == {"InstanceNorm": 1}


def test_instance_norm_with_statistics_is_no_layer() -> None:
    model = shaken(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    x = torch.randn(3, 4, 5, 6)
    run_lowered(model, (x,))
    assert not lowered(model, (x,)).layers
