"""The analyses of the small models, each made once."""

from __future__ import annotations

import pytest

from tests.analysis import models
from torch2mlx import Analysis, analyze


@pytest.fixture(scope="session")
def compiles() -> Analysis:
    return analyze(models.Compiles())


@pytest.fixture(scope="session")
def refused() -> Analysis:
    return analyze(models.Refused())


@pytest.fixture(scope="session")
def failing() -> Analysis:
    return analyze(models.Failing())


@pytest.fixture(scope="session")
def hostile() -> Analysis:
    return analyze(models.Hostile())


@pytest.fixture(params=["compiles", "refused", "failing", "hostile"])
def analysis(request: pytest.FixtureRequest) -> Analysis:
    """Each of them."""
    return request.getfixturevalue(request.param)
