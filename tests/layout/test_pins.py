"""Which inputs and outputs keep PyTorch's order: by name, by part, or all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.layout.running import assigned
from torch2mlx.errors import InputError

LAST = (0, 2, 3, 1)


class Two(nn.Module):
    """Two images in, two images out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return {"sum": self.conv(x) + self.conv(y), "first": [self.conv(x).relu()]}


ARGS = (torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5))


@pytest.mark.parametrize(
    ("io_layout", "inputs", "outputs"),
    [
        ("mlx", [LAST, LAST], [LAST, LAST]),
        ("torch", [None, None], [None, None]),
        ({"x": "torch"}, [None, LAST], [LAST, LAST]),
        ({"output": "torch"}, [LAST, LAST], [None, None]),
        ({"output['first'][0]": "torch", "y": "torch"}, [LAST, None], [LAST, None]),
        ({"output": "torch", "output['sum']": "mlx"}, [LAST, LAST], [LAST, None]),
    ],
)
def test_pins(io_layout: Any, inputs: list[Any], outputs: list[Any]) -> None:
    result = assigned(Two(), ARGS, io_layout=io_layout)
    assert (result.inputs, result.outputs) == (inputs, outputs)
    pinned = inputs.count(None) + outputs.count(None)
    assert result.transposes == len(result.reported) == pinned


@pytest.mark.parametrize(
    ("io_layout", "message"),
    [
        ("nchw", "io_layout is 'mlx' or 'torch', not 'nchw'"),
        ({"x": "nchw"}, "not 'nchw'"),
        (
            {"z": "mlx"},
            r"no input or output 'z', but x, y, output, output\['sum'\], output\['first'\]\[0\]",
        ),
    ],
)
def test_refused(io_layout: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assigned(Two(), ARGS, io_layout=io_layout)
