"""What is noted of code that arranges tensors anew, against what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch2mlx.source.rearranging import Rearranging
from torch2mlx.weights import apply

SHAPES = {"a": (4, 6), "b": (4, 6), "c": (4, 6), "d": (4, 6)}

KNOWN: dict[str, Callable[..., Any]] = {
    "stack": lambda a, b, c, d: torch.stack([a, b, c, d], dim=1),
    "concatenate": lambda a, b, c, d: torch.cat([c, a], dim=-1),
    "concatenate one": lambda a, b, c, d: torch.cat([b]),
    "concatenated stacks": lambda a, b, c, d: torch.cat(
        [torch.stack([a, b]), torch.stack([c, d])], dim=1
    ),
    "chunk": lambda a, b, c, d: torch.chunk(a, 3, dim=1)[1].contiguous(),
    "split": lambda a, b, c, d: torch.split(a, [1, 3])[-1],
    "unbind": lambda a, b, c, d: torch.stack([a, b]).unbind(-1)[2],
    "select": lambda a, b, c, d: a[:, -2].unsqueeze(1),
    "slice": lambda a, b, c, d: a[1:, :-2],
    "transpose": lambda a, b, c, d: a.transpose(0, 1).contiguous().clone(),
    "t": lambda a, b, c, d: a.t().detach(),
    "permute": lambda a, b, c, d: torch.stack([a, b]).permute(2, 0, -2),
    "interleave": lambda a, b, c, d: (
        a.reshape(4, 3, 2).transpose(1, 2).reshape(4, 6).contiguous()
    ),
    "view": lambda a, b, c, d: a.view(2, -1).squeeze().chunk(2, dim=-1)[0],
}
OTHER: dict[str, Callable[..., Any]] = {
    "sum": lambda a, b, c, d: a + b,
    "scale": lambda a, b, c, d: a * 2,
    "steps": lambda a, b, c, d: a[:, ::2],
    "merged cuts": lambda a, b, c, d: torch.cat([a[1:], b]),
    "stacks along another axis": lambda a, b, c, d: torch.cat(
        [torch.stack([a, b]), torch.stack([c, d])], dim=2
    ),
    "stacks of different lengths": lambda a, b, c, d: torch.cat(
        [torch.stack([a]), torch.stack([c, d]).reshape(1, 8, 6)], dim=1
    ),
    "new": lambda a, b, c, d: torch.zeros(2, device=a.device),
    "cast": lambda a, b, c, d: a.to(torch.float16),
}


@pytest.mark.parametrize("case", KNOWN)
def test_known(case: str):
    tensors = {key: torch.randn(shape) for key, shape in SHAPES.items()}
    with Rearranging() as rearranging:
        sources = [rearranging.source(k, "F32", shape) for k, shape in SHAPES.items()]
        entry = rearranging.made(KNOWN[case](*sources))
    assert entry is not None
    found = apply(entry, {key: tensor.numpy() for key, tensor in tensors.items()})
    assert found.tolist() == KNOWN[case](*tensors.values()).tolist()


@pytest.mark.parametrize("case", OTHER)
def test_other(case: str):
    with Rearranging() as rearranging:
        sources = [rearranging.source(k, "F32", shape) for k, shape in SHAPES.items()]
        assert rearranging.made(OTHER[case](*sources)) is None


def test_dtypes_that_differ_are_not_merged():
    with Rearranging() as rearranging:
        a, b = (rearranging.source(dtype, dtype, (2,)) for dtype in ("F32", "BF16"))
        assert rearranging.made(torch.stack([a, b])) is None
