"""Which expression over a configuration a number of a lowered model is, as far as the twin can tell."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from torch2mlx.capture.provenance import (
    frames,
    is_torch,
    module_calls,
    statement,
)
from torch2mlx.emit import functions
from torch2mlx.hyperparameters import Twin
from torch2mlx.hyperparameters.expressions import (
    Expression,
    Field,
    Operation,
    value_of,
)
from torch2mlx.outline.operands import Op, SizeOp
from torch2mlx.outline.scopes import below
from torch2mlx.outline.template import Hole, argument_names_of

# What the arguments of MLX's layers are called in PyTorch's and its users' layers
NAMESAKES = {
    "input_dims": ("in_features", "nx"),
    "output_dims": ("out_features", "nf"),
    "dims": ("embedding_dim", "normalized_shape", "num_features", "hidden_size"),
    "eps": ("eps", "variance_epsilon", "epsilon"),
    "num_groups": ("num_groups",),
}
# Names under which configurations have what no attribute keeps
CONFIGURED = {"base": ("rope_theta", "rotary_emb_base", "rope_base")}
# What a layer may have of the module around it, where PyTorch has no such layer
SIZED = ("dims", "input_dims", "output_dims")
# Functions whose numbers are sizes
SHAPING = (mx.reshape, mx.unflatten, mx.broadcast_to, mx.zeros, mx.ones, mx.full)
# Functions whose numbers are sizes or values
COUNTING = (
    *SHAPING,
    *functions.BINARY,
    *functions.COMPARE,
    mx.arange,
    mx.clip,
    mx.fast.layer_norm,
    mx.fast.rms_norm,
    mx.maximum,
    mx.minimum,
    mx.power,
    mx.where,
)
PLACES = ("axis", "axes", "dtype", "mask", "start_axis", "end_axis")


def of_size(twin: Twin, path: str, axis: int, size: int) -> Expression | None:
    """A size of an array that a module owns; axes may have changed places since it was made."""
    sizes = twin.shape(path)
    if axis < len(sizes) and _is(sizes[axis], size):
        return sizes[axis]
    return _only(sizes, size)


def of_argument(
    twin: Twin, path: str, name: str, axis: int, value: Any
) -> Expression | None:
    """An argument of the layer at `path`, or one axis of it."""
    for namesake in (name, *NAMESAKES.get(name, ())):
        parts = twin.argument(path, namesake)
        part = parts[axis] if axis < len(parts) else None
        if _is(part, value):
            return part
    if path in twin.modules:
        return _only([*twin.attributes(path).values(), *twin.shapes(path)], value)
    if name in CONFIGURED:
        known = [f for f in twin.fields() if f.name in CONFIGURED[name]]
        return _only(known, float(value))
    if name in SIZED:
        owner = twin.attributes(path.rpartition(".")[0])
        return _only([*owner.values()], value)
    return None


def of_attribute(
    attributes: dict[str, Expression], value: Any
) -> tuple[Expression, str] | None:
    """A number as an attribute, or as the scale that goes with a size among them."""
    same = {name: e for name, e in attributes.items() if _is(e, value)}
    if len({*same.values()}) == 1 and value not in (0, 1):
        name = next(iter(same))
        return same[name], name
    if isinstance(value, float) and not same and "scale" not in attributes:
        sizes = {e for e in attributes.values() if value_of(e) > 1}
        roots = {e for e in sizes if _is(Operation("**", e, -0.5), value)}
        if len(roots) == 1:
            return Operation("**", roots.pop(), -0.5), "scale"
    return None


def sizes_and_scales(item: Op) -> Iterator[Hole]:
    """The constants of a call that may be a size or a scale."""
    named = dict(zip(argument_names_of(item.node.target), item.args, strict=False))
    sizes = item.args if item.node.target in SHAPING else ()
    for operand in (*sizes, (named | item.kwargs).get("scale")):
        yield from holes(operand)


def numbers(item: Op) -> Iterator[Hole]:
    """The constants of a call that may be what the author's code says there: no axes and no positions."""
    target, args = item.node.target, item.args
    if target is operator.getitem:
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        for part in parts:
            if isinstance(part, slice):
                yield from holes((part.start, part.stop))
        return
    named = dict(zip(argument_names_of(target), args, strict=False))
    of_args = args if target in COUNTING else (named.get("k"), named.get("scale"))
    kwargs = {k: v for k, v in item.kwargs.items() if k not in PLACES}
    for operand in (*of_args, *kwargs.values()):
        yield from holes(operand)


def of_number(
    twin: Twin, template: str, path: str, node: Any, value: Any
) -> Expression | None:
    """A number that the author's line gives to PyTorch.

    Args:
        twin: The model with traced numbers.
        template: Path of the module call that the class was made from.
        path: Path of the one that is looked at.
        node: The call that has the number.
        value: The number.
    """
    origin = node.meta.get("origin")
    is_inferred = value == -1 and node.target in SHAPING
    if origin is None or isinstance(value, bool) or is_inferred:
        return None
    own = [f for f in frames(origin) if not is_torch(f)]
    calls = module_calls(origin)
    if not own or not calls:
        return None
    inside = "" if calls[-1].path == template else below(calls[-1].path, template)
    if inside is None:
        return None
    where = f"{path}.{inside}".strip(".")
    place = statement(own[-1])
    last = (place.end_lineno or place.lineno) if place is not None else 0
    lines = [own[-1].line] if place is None else [*range(place.lineno, last + 1)]
    kind = str(origin.target).split(".")[-2] if "." in str(origin.target) else ""
    for sign in (1, -1):
        found = twin.calls.number(where, own[-1].file, lines, kind, sign * value)
        if found is not None and _is(found, sign * value):
            return found if sign == 1 else Operation("-", 0, found)
    return None


def holes(operand: Any) -> Iterator[Hole]:
    """The constants in nested operands."""
    if isinstance(operand, Hole):
        yield operand
    elif isinstance(operand, tuple | list):
        for part in operand:
            yield from holes(part)
    elif isinstance(operand, SizeOp):
        yield from holes(operand.args)


def _is(expression: Expression | None, value: Any) -> bool:
    """Whether an expression over a configuration is this number."""
    if not isinstance(expression, Field | Operation) or isinstance(value, bool):
        return False
    found = value_of(expression)
    return found == value and isinstance(found, int) >= isinstance(value, int)


def _only(expressions: list[Any], value: Any) -> Expression | None:
    """The one expression that is a number, None if several are."""
    same = {e for e in expressions if _is(e, value) and value not in (0, 1)}
    return same.pop() if len(same) == 1 else None
