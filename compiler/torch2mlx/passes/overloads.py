"""From in-place overloads to functional ones, by name and signature: `add_.Tensor` -> `add.Tensor`."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
from torch._ops import OpOverload

aten = torch.ops.aten

IRREGULAR = {
    aten.normal_.default: aten.normal_functional.default,
    aten.polygamma_.default: aten.polygamma.default,  # another order of arguments
}


def mutated_names(overload: OpOverload) -> list[str]:
    """The arguments that a call writes to."""
    return [
        a.name
        for a in overload._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write
    ]


def functional_call(
    overload: OpOverload, given: dict[str, Any]
) -> tuple[OpOverload, list[Any], dict[str, Any]] | None:
    """The call that yields what a call of `overload` writes; None where there is none.

    Args:
        overload: In-place (`add_.Tensor`), or with an output argument (`add.out`).
        given: Its arguments by name, defaults included.

    Returns:
        The functional overload, its arguments and its keyword arguments.
    """
    form = functional_form(overload)
    if form is None:
        return None
    outputs = _outputs(overload)
    kept = {name: value for name, value in given.items() if name not in outputs}
    names = [argument.name for argument in form._schema.arguments]
    if set(names) == set(kept):
        kept = {name: kept[name] for name in names}
    return form, *as_written(form, list(kept.values()))


@functools.cache
def functional_form(overload: OpOverload) -> OpOverload | None:
    """The overload that yields what `overload` writes, or None where there is none."""
    if overload in IRREGULAR:
        return IRREGULAR[overload]
    namespace, _, name = overload._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    wanted = _signature(overload, _outputs(overload))
    for candidate in (
        [] if packet is None else (getattr(packet, o) for o in packet.overloads())
    ):
        if not candidate._schema.is_mutable and _signature(candidate) == wanted:
            return candidate
    return None


def _outputs(overload: OpOverload) -> list[str]:
    """The arguments that are only written, not read."""
    return [] if overload._schema.name.endswith("_") else mutated_names(overload)


def _signature(
    overload: OpOverload, without: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Names and types of the arguments; the first is called `self` or `input`."""
    found = [a for a in overload._schema.arguments if a.name not in without]
    return [(a.name if i else "", str(a.type)) for i, a in enumerate(found)]


def as_written(
    overload: OpOverload, values: list[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments and keyword arguments of a call, without those that are defaults.

    Args:
        overload: What is called.
        values: One value per argument of its schema.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    needed = 0
    for argument, value in zip(overload._schema.arguments, values, strict=True):
        default = argument.has_default_value() and _equal(value, argument.default_value)
        if not argument.kwarg_only:
            args.append(value)
            needed = needed if default else len(args)
        elif not default:
            kwargs[argument.name] = value
    return args[:needed], kwargs


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default


def is_tagged_pointwise(target: Any) -> bool:
    """Whether PyTorch says of an operator that it computes each element alone, and it draws nothing."""
    tags = getattr(target, "tags", ())
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags
