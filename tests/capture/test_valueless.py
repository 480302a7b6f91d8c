"""Models some of whose weights are on the meta device, the others in main memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch2mlx
from torch2mlx.capture.valueless import device_of, standing_in
from torch2mlx.errors import InputError
from torch2mlx.source.dry_run import check_inputs


class Half(nn.Module):
    """Its layer has no values, its buffer has; two names share the weight."""

    def __init__(self):
        super().__init__()
        with torch.device("meta"):
            self.fc = nn.Linear(4, 4)
        self.tied = self.fc.weight
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0, 5.0]), False)

    def forward(self, x):
        return self.fc(x) @ self.tied + self.shift


def test_zeros_stand_in():
    net = Half()
    weight = net.fc.weight
    assert device_of(net).type == "cpu"
    with standing_in(net) as valueless:
        assert valueless.keys() == {"fc.weight", "fc.bias", "tied"}
        assert net.fc.weight is net.tied and not net.tied.is_meta
        assert net.fc.weight.requires_grad
        assert net(torch.ones(2, 4)).tolist() == [net.shift.tolist()] * 2
    assert net.fc.weight is weight is net.tied and weight.is_meta


def test_without_any_values_nothing_stands_in():
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    assert device_of(net).type == "meta"
    with standing_in(net) as valueless:
        assert not valueless and net.weight.is_meta


def test_it_compiles_and_is_not_written():
    """What has no values is not taken for zeros later."""
    net = Half()
    args = (torch.ones(2, 4),)
    check_inputs(net, args, {}, "x")
    program = torch2mlx.compile(net, args)
    assert program.captured.tensors["fc.weight"].is_meta
    assert not program.captured.tensors["shift"].is_meta
    with pytest.raises(InputError, match="is on the meta device: it has no values"):
        program.arrays()
