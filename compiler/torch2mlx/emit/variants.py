"""Instances of one class that take a number from different places of a configuration get it from their parents.

EncoderLayer: Attention(args)    heads are args.encoder_heads            Attention(args, num_heads=args.encoder_heads)
DecoderLayer: Attention(args)    heads are args.decoder_heads     ->     Attention(args, num_heads=args.decoder_heads)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch2mlx.hyperparameters.expressions import (
    Argument,
    Expression,
    Field,
    Operation,
)

Fields = tuple[Field, ...]


def variants(vectors: Mapping[Any, tuple[tuple[Expression, str], ...]]) -> Arguments:
    """The fields that become parameters, by what they are in every instance.

    Args:
        vectors: Key of a number -> in every instance its expression, and the attribute that keeps it.
    """
    found: Arguments = {}
    for vector in vectors.values():
        fields = tuple(e for e, _ in vector if isinstance(e, Field) and not e.path)
        name = vector[0][1]
        is_plain = len(fields) == len(vector) and len({*fields}) > 1
        if is_plain and name and name not in found.values():
            found.setdefault(fields, name)
    return found


Arguments = dict[Fields, str]


def replaced(
    expressions: tuple[Expression, ...], known: Arguments
) -> Expression | None:
    """One expression for all instances, fields that are not the same in all being parameters; None if there is none."""
    first, *others = expressions
    if all(other == first for other in others):
        return first
    fields = tuple(e for e in expressions if isinstance(e, Field))
    if len(fields) == len(expressions):
        name = known.get(fields)
        return None if name is None else Argument(name, fields[0].value)
    operations = [e for e in expressions if isinstance(e, Operation)]
    if len(operations) < len(expressions) or len({o.operator for o in operations}) > 1:
        return None
    left = replaced(tuple(o.left for o in operations), known)
    right = replaced(tuple(o.right for o in operations), known)
    if left is None or right is None:
        return None
    return Operation(operations[0].operator, left, right)
