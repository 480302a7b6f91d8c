"""Arguments with one number per spatial axis, as ATen gives them and as people write them."""

from __future__ import annotations

from typing import Any


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """`value` as one number per axis; ATen may give one number for all, or none (an empty list)."""
    if isinstance(value, int):
        return (value,) * axes
    values = tuple(value)
    return values * axes if len(values) == 1 else values


def as_written(values: tuple[int, ...]) -> Any:
    """An int where all axes agree, else the tuple."""
    return values[0] if len(set(values)) == 1 else values


def options(axes: int, **values: tuple[Any, Any]) -> dict[str, Any]:
    """Keyword arguments that differ from their defaults.

    Args:
        axes: Number of spatial axes.
        values: name -> (value as ATen gives it, the default as one number).
    """
    written = {
        name: as_written(per_axis(value, axes)) for name, (value, _) in values.items()
    }
    return {name: value for name, value in written.items() if value != values[name][1]}
