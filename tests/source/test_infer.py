"""Inferred inputs: the model runs on them, and the line says where they come from."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mlx.errors import InputError
from torch2mlx.source.infer import infer, integer_limits


class Lambda(nn.Module):
    """A model of one function and its layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.places = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens, positions, mask=None):
        x = self.words(tokens) + self.places(positions)
        return self.head(x if mask is None else x * mask)


class Branches(nn.Module):
    """Python control flow on values: symbolic tracing gives up, probing does not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 26 * 26, 3)

    def forward(self, image):
        x = self.conv(image)
        if x.shape[0] > 100:
            x = x.relu()
        for row in range(len(x.shape)):
            x = x + row
        return self.fc(x.flatten(1))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, x, y):
        return self.proj(x + y)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, x, residual):
        return self.proj(x) + residual


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, *, x):
        return self.proj(x)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 7))

    def forward(self, x):
        return F.linear(x, self.weight)


CASES = {
    "linear": (nn.Linear(7, 3), "input: float32 [2, 7]"),
    "sequential": (
        nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        "input: float32 [2, 784]",
    ),
    "conv": (nn.Conv2d(3, 4, 3), "input: float32 [2, 3, 64, 64]"),
    "conv then flatten": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 5)),
        "input: float32 [2, 1, 28, 28]",
    ),
    "conv1d": (nn.Conv1d(5, 4, 3), "input: float32 [2, 5, 64]"),
    "conv3d": (nn.Conv3d(2, 4, 3), "input: float32 [2, 2, 16, 32, 32]"),
    "transposed": (nn.ConvTranspose2d(6, 4, 2), "input: float32 [2, 6, 64, 64]"),
    "embedding": (nn.Embedding(30, 4), "input: int64 [2, 16]"),
    "lstm": (nn.LSTM(5, 4, batch_first=True), "input: float32 [2, 16, 5]"),
    "gru": (nn.GRU(5, 4), "input: float32 [16, 2, 5]"),
    "norm": (nn.LayerNorm((4, 6)), "input: float32 [2, 4, 6]"),
    "batch norm": (nn.BatchNorm1d(6), "input: float32 [2, 6]"),
    "group norm": (nn.GroupNorm(2, 6), "input: float32 [2, 6, 64, 64]"),
    "half": (nn.Linear(7, 3).half(), "input: float16 [2, 7]"),
    "encoder": (
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
        "src: float32 [2, 16, 8]",
    ),
    "method first": (
        Lambda(lambda m, x: m.fc(x.flatten(1) * 2), fc=nn.Linear(9, 2)),
        "x: float32 [2, 9]",
    ),
    "sizes only": (
        Lambda(lambda m, x: m.fc(x.view(x.shape[0], -1)), fc=nn.Linear(9, 2)),
        "x: float32 [2, 9]",
    ),
    "weight": (Weighted(), "x: float32 [2, 7]"),
    "control flow": (Branches(), "image: float32 [2, 1, 28, 28]"),
    "keyword only": (Keyword(), "x: float32 [2, 6]"),
}


@pytest.mark.parametrize("case", CASES)
def test_infer(case: str):
    model, expected = CASES[case]
    args, kwargs, line = infer(model.eval())
    assert line.startswith(expected + ", as ")
    with torch.no_grad():
        model(*args, **kwargs)


def test_the_line_names_the_layer():
    _, _, line = infer(Text().eval())
    assert line == (
        "tokens: int64 [2, 16], as words (Embedding) takes it; "
        "positions: int64 [2, 16], as places (Embedding) takes it"
    )


def test_integers_index_their_own_table():
    (tokens, positions), _, _ = infer(Text().eval())
    assert tokens.max() >= 16
    assert positions.max() < 16
    assert integer_limits(Text()) == {"": 16, "tokens": 50, "positions": 16}


def test_limit_of_models_that_cannot_be_traced():
    assert integer_limits(Branches()) == {"": 2}


def test_inputs_that_meet_before_the_layer_have_its_shape():
    args, _, line = infer(Sum().eval())
    assert [tuple(a.shape) for a in args] == [(2, 6), (2, 6)]
    assert "y: float32 [2, 6], as proj (Linear) takes it" in line


def test_what_the_layer_gives_is_not_guessed():
    with pytest.raises(InputError, match="no layer tells what 'residual' is"):
        infer(Residual().eval())


def test_same_values_every_time():
    model = nn.Linear(7, 3)
    assert torch.equal(infer(model)[0][0], infer(model)[0][0])


def test_buffers_are_left_alone():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    infer(model)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_nothing_tells():
    with pytest.raises(InputError) as caught:
        infer(Lambda(lambda m, x: x * 2).eval())
    assert str(caught.value) == (
        "cannot infer the inputs of Lambda: no layer tells what 'x' is; "
        "give them, for example --input x=2,3,224,224"
    )


class Variadic(nn.Module):
    def forward(self, *args):
        return args


def test_no_named_argument():
    with pytest.raises(
        InputError, match="its forward\\(\\) names no required argument"
    ):
        infer(Variadic())


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        print("forward", x.shape)
        warnings.warn("careful", stacklevel=1)
        return self.fc(x.flatten(1))


def test_guesses_are_silent(capfd, caplog):
    infer(Noisy().eval())
    infer(CASES["conv then flatten"][0].eval())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not logging.getLogger("torch._subclasses.fake_tensor").disabled


def test_the_guess_does_not_run():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 2))
    with pytest.raises(InputError) as caught:
        infer(model.eval())
    text = str(caught.value)
    assert "with input: float32 [2, 4] forward() fails: RuntimeError: " in text
    assert "\n" not in text


def test_a_model_that_branches_on_values():
    def forward(model, x):
        y = model.fc(x)
        return y if y.sum() > 0 else -y

    args, kwargs, line = infer(Lambda(forward, fc=nn.Linear(5, 3)))
    assert [a.shape for a in args] == [(2, 5)] and kwargs == {}
    assert line == "x: float32 [2, 5], as fc (Linear) takes it"
