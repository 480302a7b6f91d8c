"""What a compile did, as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from torch2mlx.ir.decision import Decision
from torch2mlx.layout import Transpose


@dataclass
class Report:
    """What a compile did.

    Attributes:
        model: Qualified name of the PyTorch class.
        ops: ATen overload -> how often the op table lowered it.
        layers: `mlx.nn` class -> how many of it there are.
        parameters: Elements of all arrays that the file holds, and how many of them train.
        trainable: Elements of those that train.
        bytes: Bytes of all arrays.
        inputs: One line for each input.
        outputs: One line for each output.
        notes: What the user should know, e.g. sizes that are fixed.
        transposes: The transposes that are left, and why.
        decisions: What was folded, fused or declined, and why.
        unused: State dict keys that no operator reads.
        stubs: Functions of the generated file that are to be filled in.
    """

    model: str
    ops: Counter[str] = field(default_factory=Counter)
    layers: Counter[str] = field(default_factory=Counter)
    parameters: int = 0
    trainable: int = 0
    bytes: int = 0
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    transposes: list[Transpose] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain containers, for JSON."""
        # asdict would count the items of a Counter
        return asdict(self) | {"ops": dict(self.ops), "layers": dict(self.layers)}
