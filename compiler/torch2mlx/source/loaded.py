"""What a loader of one kind of source returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

# Positional arguments, keyword arguments, one line that says how they were found
Example = tuple[tuple[Any, ...], dict[str, Any], str]


@dataclass(frozen=True)
class Loaded:
    """A model before it has inputs.

    Attributes:
        model: The module.
        name: What the source calls it; names the output folder.
        example: Finds example inputs, or None where the model's own layers must tell.
        program: The exported program, where the source is one.
        notes: What the user should know about the model, e.g. that its weights are random.
        files: Files to copy along, by name.
        checkpoint: Where its weights lie on the disk, under the names of its state dict or of the option `conversion`.
        options: Options of `torch2mlx.compile` that the source asks for.
    """

    model: nn.Module
    name: str
    example: Callable[[nn.Module], Example] | None = None
    program: ExportedProgram | None = None
    notes: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


RANDOM_WEIGHTS = "the weights are random: the source comes without trained ones"
