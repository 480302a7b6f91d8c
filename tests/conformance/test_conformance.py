"""PyTorch's own samples of its operators and modules: nothing is wrong, and the support matrix is current.

Each day another part of the databases is run, so that all come round in a month; OPERATORS=all runs all.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.conformance import matrix
from tests.conformance.check import check, difference
from tests.conformance.samples import Sample, databases, left_out

# One of each kind of operator, run each time
ALWAYS = [
    "nn.functional.conv2d",
    "nn.functional.layer_norm",
    "nn.functional.scaled_dot_product_attention",
    "nn.LSTM",
    "addmm",
    "argmax",
    "cumsum",
    "floor_divide",
    "gather",
    "index_put",
    "max",
    "sort",
    "squeeze",
    "sum",
    "view",
]
DAYS = 28


def todays() -> list[str]:
    """The part of the databases that is run today."""
    names = sorted(databases())
    if os.environ.get("OPERATORS") == "all":
        return names
    return names[datetime.date.today().toordinal() % DAYS :: DAYS]


def refusals() -> dict[str, int]:
    """Database entry -> how many of its samples are refused, by the support matrix."""
    entries = json.loads(matrix.DATA.read_text())["entries"]
    return {name: e["status"].get("refused", 0) for name, e in entries.items()}


def run(name: str) -> None:
    refused = 0
    for sample in databases()[name]():
        outcome = check(sample)
        assert outcome.status not in ("wrong", "crash"), f"{sample.key}: {outcome.why}"
        refused += outcome.status == "refused"
    assert refused <= refusals().get(name, 0), "fewer samples were refused before"


@pytest.mark.parametrize("name", ALWAYS)
def test_operator(name: str) -> None:
    run(name)


@pytest.mark.slow
def test_todays_operators(subtests: pytest.Subtests) -> None:
    for name in todays():
        with subtests.test(name):
            run(name)


def test_the_support_matrix_is_current(update_golden: bool) -> None:
    page = matrix.render(json.loads(matrix.DATA.read_text()))
    if update_golden:
        matrix.PAGE.write_text(page)
    assert matrix.PAGE.read_text() == page


def test_nothing_is_wrong_in_the_support_matrix() -> None:
    for name, entry in json.loads(matrix.DATA.read_text())["entries"].items():
        assert not {"wrong", "crash"} & set(entry["status"]), name


def sample(function: Callable[[torch.Tensor], torch.Tensor]) -> Sample:
    class Applied(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    x = torch.randn(3, 4)
    return Sample("sample", "", Applied(), (x,), differentiable=True)


def test_the_check_tells_right_from_refused() -> None:
    outcome = check(sample(torch.sin))
    assert outcome.compare_gradients is not None
    outcome.compare_gradients()
    assert (outcome.status, outcome.gradient) == ("right", "right")
    assert dict(outcome.targets["aten.sin.default"]) == {"mx.sin": 1}
    outcome = check(sample(lambda x: torch.geqrf(x)[0]))
    assert (outcome.status, outcome.refused) == ("refused", ["aten.geqrf.default"])


def wrong_ones() -> Iterator[tuple[str, torch.Tensor]]:
    yield "dtype", torch.ones(2, dtype=torch.int64)
    yield "shape", torch.ones(2, 1)
    yield "differ", torch.tensor([1.0, 1.1])


@pytest.mark.parametrize(("why", "got"), list(wrong_ones()))
def test_the_check_finds_differences(why: str, got: torch.Tensor) -> None:
    import mlx.core as mx

    assert why in difference(torch.ones(2), mx.array(got.numpy()))
    assert not difference(torch.ones(2), mx.ones(2))
    assert "outputs" in difference((torch.ones(2),) * 2, mx.ones(2))


def test_what_is_out_of_scope_says_why() -> None:
    assert left_out("jiterator_unary") == "compiles CUDA source"
    assert left_out("add") is None
