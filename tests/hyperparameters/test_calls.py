"""What the numbers are that a model's `forward` gives to PyTorch."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.hyperparameters.test_twin import text
from torch2mlx.hyperparameters import twin_of
from torch2mlx.hyperparameters.twin import Twin


def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x * factor  # in a helper


class Router(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.top_k = config.experts_per_token
        self.cap = config.cap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x / self.cap)  # a fraction
        _, index = torch.topk(x, self.top_k)  # how many
        rows = index.reshape(-1) // index.size(-1)  # a size
        x = x[rows] * (index.shape[1] + 1)  # computed from a size
        x = x.reshape(-1, self.top_k, 3, 1)  # an equal number
        x = x[:, : self.config.window]  # of a slice
        x = x + math.log(self.config.window / 5)  # a logarithm
        x = (x + self.top_k) * self.config.experts_per_group  # of two operators
        return scaled(x, self.cap)


class Model(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.router = Router(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.router(x)
        if x.sum() > 0:
            x = x * self.config.window
        return x


CONFIG = {"experts_per_token": 3, "experts_per_group": 3, "cap": 30.0, "window": 7}


def seen() -> Twin:
    model = Model(SimpleNamespace(**CONFIG))
    twin = twin_of(model, (torch.randn(4, 6),))
    assert twin is not None
    return twin


def number(twin: Twin, comment: str, value: int | float, operator: str = "") -> str:
    """What a number is in the line that ends with a comment."""
    where = Router if comment != "in a helper" else scaled
    lines, first = inspect.getsourcelines(where)
    (place,) = (i for i, line in enumerate(lines) if line.endswith(f"# {comment}\n"))
    line = [first + place]
    found = twin.calls.number("router", __file__, line, operator, value)
    return "" if found is None else text(found)


def test_numbers_that_a_line_gives_to_pytorch() -> None:
    twin = seen()
    assert number(twin, "a fraction", 30.0) == "cap"
    assert number(twin, "how many", 3) == "experts_per_token"
    assert number(twin, "of a slice", 7) == "window"
    assert number(twin, "in a helper", 30.0) == "cap"
    assert number(twin, "a fraction", 7) == ""


def test_sizes_that_a_call_was_given() -> None:
    twin = seen()
    assert number(twin, "a size", 3) == "experts_per_token"
    assert number(twin, "computed from a size", 4) == "(experts_per_token + 1)"


def test_functions_of_math() -> None:
    logarithm = math.log(7 / 5)
    assert number(seen(), "a logarithm", logarithm) == "((window / 5) log 0)"
    assert type(math.log(2.0)) is float
    assert math.log.__module__ == "math"


def test_an_equal_number_beside_it_is_no_evidence() -> None:
    assert number(seen(), "an equal number", 3) == ""


def test_of_two_meanings_the_one_of_the_operator() -> None:
    twin = seen()
    assert number(twin, "of two operators", 3, "add") == "experts_per_token"
    assert number(twin, "of two operators", 3, "mul") == "experts_per_group"
    assert number(twin, "of two operators", 3, "div") == ""


def test_fusions_join_lines_of_fractions() -> None:
    """A fraction is known in the whole module, a whole number is not."""
    calls = seen().calls
    assert text(calls.number("router", "other.py", [1], "", 30.0)) == "cap"
    assert calls.number("router", "other.py", [1], "", 7) is None


def test_a_branch_on_values_ends_it() -> None:
    """What was seen before holds."""
    twin = seen()
    assert not any(path == "" and 7 in found for path, found in calls_of(twin).items())


def calls_of(twin: Twin) -> dict[str, dict[int | float, Any]]:
    return twin.calls.modules
