"""The inputs that are compared, and the noise on constant parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch2mlx.capture import capture
from torch2mlx.verify.cases import further
from torch2mlx.verify.perturb import constant_arrays, perturbed


def drawn(model, args, seed=0):
    """The first of each choice."""
    return [next(iter(choice)) for choice in further(capture(model, args), seed)]


class Masked(nn.Module):
    def forward(self, tokens, mask, x):
        return tokens * mask, x.where(mask.bool(), x * 0)


def test_values_are_like_the_example():
    tokens = torch.randint(5, 9, (3, 6))
    mask = torch.ones(3, 6, dtype=torch.long)
    x = torch.randn(3, 6).double()
    cases = drawn(Masked(), (tokens, mask, x))
    assert [case.name for case in cases] == [
        "batch size 4",
        "batch size 1",
        "sizes tokens [3, 7], mask [3, 7]",
        "padded mask",
    ]
    new_tokens, new_mask, new_x = cases[0].tensors
    assert new_tokens.dtype == torch.int64
    assert {*new_tokens.flatten().tolist()} <= {*tokens.flatten().tolist()}
    assert torch.equal(new_mask, torch.ones(4, 6, dtype=torch.long))
    assert (new_x.dtype, new_x.shape) == (torch.float64, (4, 6))


def test_padding_leaves_something_of_every_row():
    mask = torch.ones(9, 4, dtype=torch.long)
    x = torch.randn(9, 4)
    cases = drawn(Masked(), (mask.clone(), mask, x))
    padded = cases[-1].tensors[1]
    assert padded[:, 0].all()
    assert not padded[:, -1].any()
    assert sorted(set(padded.sum(1).tolist())) == [1, 2, 3]
    assert mask.all()


def test_the_same_seed_gives_the_same_inputs():
    model, args = nn.Linear(3, 2).eval(), (torch.randn(2, 3),)
    first, again, other = (drawn(model, args, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.tensors[0], again.tensors[0])
    assert not torch.equal(first.tensors[0], other.tensors[0])


def test_sizes_stay_within_what_was_captured():
    class Short(nn.Module):
        def forward(self, x):
            return x * 2 if x.shape[1] <= 5 else x

    _, _, sizes = further(capture(Short(), (torch.randn(2, 5),)), 0)
    assert [tuple(inputs.tensors[0].shape) for inputs in sizes] == [(2, 4)]


def test_what_pytorch_may_refuse_has_alternatives():
    _, _, sizes = further(capture(nn.ReLU().eval(), (torch.randn(2, 4, 5),)), 0)
    shapes = [tuple(inputs.tensors[0].shape[1:]) for inputs in sizes]
    assert shapes == [
        (5, 7),
        (5, 6),
        (36, 69),
        (36, 37),
        (5, 5),
        (36, 5),
        (4, 6),
        (4, 37),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_goes_away_bit_by_bit(dtype):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval().to(dtype)
    nn.init.constant_(model[0].bias, -0.0)
    captured = capture(model, (torch.randn(2, 4, dtype=dtype),))
    found = constant_arrays(model, captured)
    # bias; weight, bias, running mean and variance of the norm
    assert len(found) == 5
    bits = {
        key: t.clone().view(torch.uint8)
        for key, t in model.state_dict().items()
        if t.ndim
    }

    def disturb() -> None:
        with perturbed(found, 0):
            assert all(len(tensor.unique()) > 1 for tensor in found)
            assert (model[1].running_var > 0).all()
            raise KeyError

    with pytest.raises(KeyError):
        disturb()
    for key, before in bits.items():
        assert torch.equal(model.state_dict()[key].view(torch.uint8), before), key


def test_noise_leaves_a_graph_of_autograd_valid():
    model = nn.LayerNorm(3).eval()
    found = constant_arrays(model, capture(model, (torch.randn(2, 3),)))
    loss = model(torch.randn(2, 3)).sum()
    with perturbed(found, 0):
        pass
    loss.backward()
    assert model.weight.grad is not None


def test_values_that_were_computed_with_get_no_noise():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.full((3,), 2.0), persistent=False)

        def forward(self, x):
            return x * self.scale

    model = Scaled()
    assert constant_arrays(model, capture(model, (torch.randn(2, 3),))) == []
