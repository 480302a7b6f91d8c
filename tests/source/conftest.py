"""A folder of one's own to be in, with a small model file."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

NET = """\
import torch
from torch import nn

from helpers_of_net import WIDTH


class Net(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(x)

    @classmethod
    def wide(cls):
        return cls(9)


class Sized(Net):
    def __init__(self, width):
        super().__init__(width)


net = Net()
size = 3


def build():
    return Net(5)


def broken():
    return 1 / 0


def stops():
    raise SystemExit(4)


def config():
    return {"width": 3}
"""


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Path, None, None]:
    """The current folder: net.py, and a module that it imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "helpers_of_net.py").write_text("WIDTH = 4\n")
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]
