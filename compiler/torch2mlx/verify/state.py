"""The buffers that forward writes to: set back between runs, compared after them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import mlx.nn
import torch
from mlx.utils import tree_flatten

from torch2mlx.capture.evaluation import evaluating
from torch2mlx.verify.compare import Tolerance, compare_leaf
from torch2mlx.verify.result import BUFFER, OutputError
from torch2mlx.verify.sides import to_mlx

if TYPE_CHECKING:
    from torch2mlx.api import Program


class State:
    """The buffers of a program that forward writes to.

    Args:
        program: The compiled program.

    Attributes:
        keys: Key in the generated module -> state dict key.
    """

    def __init__(self, program: Program):
        self.model = program.model
        changing = program.captured.state_keys
        self.keys = {
            entry.key: entry.sources[0]
            for entry in program.plan.entries
            if entry.sources[0] in changing
        }

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """While this is open, the PyTorch model may change its buffers."""
        with evaluating(self.model) if self.keys else contextlib.nullcontext():
            yield

    def held(self) -> list[torch.Tensor]:
        """Copies of the buffers as the PyTorch model has them."""
        tensors = dict(self.model.named_buffers())
        return [tensors[source].clone() for source in self.keys.values()]

    def load(self, module: mlx.nn.Module) -> None:
        """Give a generated module the buffers that the PyTorch model has now."""
        pairs = zip(self.keys, map(to_mlx, self.held()), strict=True)
        module.load_weights(list(pairs), strict=False)

    def compare(
        self, want: list[torch.Tensor], module: mlx.nn.Module, tolerance: Tolerance
    ) -> list[OutputError]:
        """Compare the buffers of a generated module with copies of PyTorch's."""
        arrays: dict = dict(tree_flatten(module.parameters()))
        return [
            compare_leaf(f"{BUFFER}{source}", tensor, arrays[key], None, tolerance)
            for (key, source), tensor in zip(self.keys.items(), want, strict=True)
        ]
