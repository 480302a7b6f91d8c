"""Why sizes are fixed: the author's line."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import torch2mlx


class Fixed(nn.Module):
    """Its batch is a number to Python, its length that of a parameter, its channels a weight's."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.position = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> Any:
        rows = int(x.shape[0])
        y = self.fc(x) + self.position
        return y * rows, more["k"] * 2


def test_the_line_that_fixes_a_size() -> None:
    example = torch.randn(2, 6, 4), {"k": torch.randn(3, 7)}
    notes = torch2mlx.compile(Fixed(), example).report.notes
    first = Fixed.forward.__code__.co_firstlineno
    here = f"the model fixes it at {__file__}"
    assert notes == [
        f"`x.shape[0]` must be 2: {here}:{first + 1}: rows = int(x.shape[0])",
        f"`x.shape[1]` must be 6: {here}:{first + 2}: y = self.fc(x) + self.position",
    ]


def test_several_sizes_at_one_line() -> None:
    class Added(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(12.0).view(3, 4)

    (note,) = torch2mlx.compile(Added(), (torch.randn(2, 3, 4),)).report.notes
    assert note.startswith(
        "`x.shape[1]` must be 3 and `x.shape[2]` must be 4: the model"
    )


def test_nothing_is_said_where_all_is_fixed_on_purpose() -> None:
    example = torch.randn(2, 6, 4), {"k": torch.randn(3, 7)}
    assert torch2mlx.compile(Fixed(), example, dynamic=False).report.notes == []
