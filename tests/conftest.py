"""Shared by all tests: a quiet, offline, single-threaded environment and the golden switch."""

from __future__ import annotations

import os

# Read by mlx and transformers when they are imported, so set before anything imports them.
os.environ["MLX_ENABLE_TF32"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest
import torch

from tests.support import declare_torchvision_ops

torch.set_num_threads(1)
# How long an example takes tells of the machine's load, not of the code
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> None:
    """Random numbers that a test file draws when it is imported are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random numbers that a test draws are the same in every run, whatever ran before."""
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        default=False,
        help="rewrite the files under golden/ instead of comparing with them",
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether `--update-golden` was given."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def torchvision_models():
    """The module `torchvision.models`, importable whatever the torch build."""
    declare_torchvision_ops()
    import torchvision.models

    return torchvision.models
