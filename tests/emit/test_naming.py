"""Names of values: the author's where they hold what he calls so, and never those of something else."""

from __future__ import annotations

import torch
from torch import nn

from tests.program import check


def rotated(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    even = states * 2.0 + states.exp()
    odd = states * 3.0 + states.exp()
    return even, odd


def banded(size: int, width: int) -> torch.Tensor:
    places = torch.arange(size)
    distance = places[:, None] - places
    return distance.abs() < width


class Helpers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys = rotated(x)
        return queries.softmax(-1) @ keys + queries.sum() * keys


def test_what_a_helper_returns_has_the_name_of_its_caller() -> None:
    program = check(Helpers(), (torch.randn(3, 3),))
    assert "queries = x * 2.0" in program.source
    assert "keys = x * 3.0" in program.source
    assert "even" not in program.source


class Chosen(nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        best_scores, best_places = torch.topk(scores, 2, dim=-1)
        return best_scores * best_places + best_scores.sum(-1, keepdim=True)


def test_each_of_several_results_has_its_own_name() -> None:
    program = check(Chosen(), (torch.randn(4, 6),))
    assert "best_places = " in program.source
    assert "best_scores = mx.take_along_axis(scores, best_places" in program.source


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        weights = self.fc(tokens).masked_fill(~banded(tokens.shape[1], 2), -1e9)
        return weights.softmax(-1) + weights


def test_an_ingredient_is_not_called_like_the_whole() -> None:
    program = check(Masked(), (torch.randn(2, 5, 5),))
    assert "weights = mx.where(" in program.source
    assert "weights = mx.arange" not in program.source
    assert "tokens = " not in program.source.replace("tokens: ", "")


class Nested(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masks = {
            "near": banded(x.shape[1], 2),
            "far": banded(x.shape[1], 3),
        }
        y = x.masked_fill(masks["near"], 0.0) + x.masked_fill(masks["far"], 1.0)
        return y.masked_fill(masks["near"], 0.0) * x.masked_fill(~masks["far"], 1.0)


def test_what_a_dict_holds_has_the_name_of_its_key() -> None:
    program = check(Nested(), (torch.randn(5, 5),))
    assert "near = " in program.source
    assert "far = " in program.source
    assert "masks" not in program.source


class Beside(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masks = {"near": banded(x.shape[1], 2), "far": banded(x.shape[1], 3)}
        y = x.masked_fill(masks["near"], 0.0) + x.masked_fill(masks["far"], 1.0)
        return y.masked_fill(masks["near"], 0.0) * x.masked_fill(~masks["far"], 1.0)


def test_entries_of_one_line_have_no_names() -> None:
    program = check(Beside(), (torch.randn(5, 5),))
    assert "near" not in program.source.replace("nearest", "")
