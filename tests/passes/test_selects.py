"""What is picked from permuted arrays, and masks by example: fewer kernels, the same numbers."""

from __future__ import annotations

import pytest
import torch

from tests.program import check


class Attention(torch.nn.Module):
    """Queries, keys and values in one array, picked by number."""

    def __init__(self, also: bool) -> None:
        super().__init__()
        self.also = also

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = x.reshape(2, 5, 3, 4, 6).permute(2, 0, 3, 1, 4)
        result = torch.sigmoid(qkv[0]) * qkv[1] + qkv[2]
        return result + qkv.sum() if self.also else result


@pytest.mark.parametrize("also", [False, True])
def test_parts_are_picked_first(also: bool) -> None:
    program = check(Attention(also), (torch.randn(2, 5, 72),))
    assert ("[:, :, 1]" in program.source) != also
    assert ("[1]" in program.source) == also


class NewArrays(torch.nn.Module):
    """A mask that is made by the example of an input, of sizes that are known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.new_zeros((3, 4))
        mask[1:, :2] = 1.0
        return x * mask + x.new_full((4,), 2.0) + x.new_ones((3, 1))


def test_new_arrays_depend_on_no_input() -> None:
    program = check(NewArrays(), (torch.randn(3, 4),))
    assert {d.kind for d in program.report.decisions} == {"folded"}
    assert "= 1.0" not in program.source
