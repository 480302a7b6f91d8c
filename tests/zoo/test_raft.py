"""Optical flow of torchvision: two images in, a list of flow fields out."""

from __future__ import annotations

import pytest
import torch

import torch2mlx
from tests.support import declare_torchvision_ops

pytestmark = [pytest.mark.zoo, pytest.mark.slow]


@pytest.mark.parametrize("name", ["raft_small", "raft_large"])
def test_raft(name: str) -> None:
    """Also for other batches and other image sizes, which `verify` draws."""
    declare_torchvision_ops()
    from torchvision.models import optical_flow

    model = getattr(optical_flow, name)(weights=None).eval()
    images = tuple(2 * torch.rand(1, 3, 128, 128) - 1 for _ in range(2))
    program = torch2mlx.compile(model, images, {"num_flow_updates": 2})
    verification = program.verify()
    assert verification.ok, "\n".join(verification.lines())
    assert len(verification.cases) >= 4
