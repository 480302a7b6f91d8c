"""`forward(self, x, *more, **named)` with the arguments that it is called with as arguments of its own."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from torch2mlx.capture.evaluation import replaced_forward

P = inspect.Parameter
MANY = (P.VAR_POSITIONAL, P.VAR_KEYWORD)


@contextlib.contextmanager
def explicit_signature(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """While this is open, `forward` names each argument that `*args` and `**kwargs` collect.

    The capture fixes their number, and torch.export can only describe sizes of arguments with a name.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    if not any(p.kind in MANY for p in parameters):
        yield
        return
    named = [p for p in parameters if p.kind not in MANY]
    positional = [p for p in named if p.kind is not P.KEYWORD_ONLY]
    many = next((p.name for p in parameters if p.kind is P.VAR_POSITIONAL), "")
    rest = range(len(args) - len(positional))
    if rest:  # all before them are given, too
        positional = [p.replace(default=P.empty) for p in positional]
    known = {p.name for p in named}
    explicit = [
        *positional,
        *(P(f"{many}_{i}", P.POSITIONAL_OR_KEYWORD) for i in rest),
        *(p for p in named if p.kind is P.KEYWORD_ONLY),
        *(P(name, P.KEYWORD_ONLY) for name in kwargs if name not in known),
    ]
    forward = model.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    call.__signature__ = inspect.Signature(explicit)  # type: ignore[attr-defined]
    with replaced_forward(model, call):
        yield


def explicit_shapes(model: torch.nn.Module, shapes: Any) -> Any:
    """`dynamic_shapes` for that signature, from those for the parameters of `forward` itself."""
    if not isinstance(shapes, Mapping):
        return shapes
    kinds = {
        p.name: p.kind for p in inspect.signature(model.forward).parameters.values()
    }
    explicit: dict[str, Any] = {}
    for name, shape in shapes.items():
        if kinds.get(name) is P.VAR_POSITIONAL:
            explicit |= {f"{name}_{i}": part for i, part in enumerate(shape)}
        elif kinds.get(name) is P.VAR_KEYWORD:
            explicit |= shape
        else:
            explicit[name] = shape
    return explicit
