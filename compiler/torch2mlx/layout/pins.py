"""Which inputs and outputs of a model keep PyTorch's axis order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from torch2mlx.capture import Captured
from torch2mlx.errors import InputError

Layout = Literal["mlx", "torch"]
IOLayout = Layout | Mapping[str, Layout]

OUTPUT = "output"


@dataclass(frozen=True)
class Pins:
    """What keeps PyTorch's order.

    Attributes:
        inputs: Placeholder names.
        outputs: For each output value, whether it does.
    """

    inputs: frozenset[str]
    outputs: tuple[bool, ...]


def pins(io_layout: IOLayout, captured: Captured) -> Pins:
    """The pins that `io_layout` asks for.

    Args:
        io_layout: "mlx", "torch", or one of them by name: a parameter of `forward`, "output" for all that
            is returned, or a part of that: "output[0]", "output['logits']". Others are "mlx".
        captured: The model.

    Raises:
        InputError: There is no such layout, input or output.
    """
    names = [item.argument for item in captured.inputs]
    labels = list(_labels(captured))
    given = io_layout
    if isinstance(given, str):
        given = dict.fromkeys([*names, OUTPUT], given)
    known = dict.fromkeys([*names, OUTPUT, *labels])
    for name, layout in given.items():
        if layout not in ("mlx", "torch"):
            raise InputError(f"io_layout is 'mlx' or 'torch', not {layout!r}")
        if name not in known:
            found = ", ".join(known)
            raise InputError(f"the model has no input or output {name!r}, but {found}")
    inputs = (i.name for i in captured.inputs if given.get(i.argument) == "torch")
    all_outputs = given.get(OUTPUT)
    outputs = (given.get(label, all_outputs) == "torch" for label in labels)
    return Pins(frozenset(inputs), tuple(outputs))


def _labels(captured: Captured) -> Iterator[str]:
    """The name of each output value."""
    spec: Any = captured.out_spec
    numbers = tree_unflatten(list(range(spec.num_leaves)), spec)
    for path, _ in tree_flatten_with_path(numbers)[0]:
        yield OUTPUT + keystr(path)
