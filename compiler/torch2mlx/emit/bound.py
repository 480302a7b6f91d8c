"""Constants of generated classes that are expressions over `args`, and the attributes that keep them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch2mlx.hyperparameters.expressions import Expression, Field, Operation


@dataclass(frozen=True)
class Bound:
    """A constant of a class that is an expression over `args`.

    Attributes:
        expression: The expression.
        attribute: The attribute that keeps it, "" where only the constructor needs it.
        parts: Where several attributes keep parts of it: these and the attributes.
    """

    expression: Expression
    attribute: str = ""
    parts: tuple[tuple[Expression, str], ...] = ()

    @property
    def kept(self) -> dict[Expression, str]:
        """What attributes keep, and which."""
        own = {self.expression: self.attribute} if self.attribute else {}
        return own | dict(self.parts)


def kept_by(
    origin: Expression | None,
    attributes: Mapping[str, Expression],
    taken: Collection[str],
) -> Bound | None:
    """An expression of attributes, which have the author's names, else those of the configuration.

    Args:
        origin: The expression, if it is known.
        attributes: The author's attributes.
        taken: Names that no other attribute can have.

    Returns:
        None where some number in it has no name.
    """
    parts: dict[Expression, str] = {}

    def visit(part: Expression) -> bool:
        name = next((n for n, e in attributes.items() if e == part), "")
        if isinstance(part, Field) and not name and part.name not in attributes:
            name = part.name if part.name not in taken else ""
        if name:
            parts[part] = name
            return True
        if isinstance(part, Operation):
            return visit(part.left) and visit(part.right)
        return isinstance(part, int | float)

    if origin is None or not visit(origin):
        return None
    if origin in parts:
        return Bound(origin, parts[origin])
    return Bound(origin, parts=tuple(parts.items()))
