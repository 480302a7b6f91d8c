"""Names of local variables: the author's, or what the value is."""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator

import mlx.core as mx
import sympy
import torch
import torch.fx

from torch2mlx.capture.provenance import (
    Frame,
    assigned_names,
    frames,
    frames_in_class,
    is_torch,
    returned_names,
    statement,
)
from torch2mlx.ir.names import is_variable
from torch2mlx.outline.operands import HOISTED
from torch2mlx.outline.segments import argument_names
from torch2mlx_templates.helpers import masked_attention

MEANINGLESS = frozenset({"ret", "result", "input", "output"})
ATTENTIONS = (mx.fast.scaled_dot_product_attention, masked_attention)
EXPANSIONS = (torch.ops.aten.expand.default, torch.ops.aten.repeat.default)
VIEWS = (
    *EXPANSIONS,
    torch.ops.aten.permute.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.unflatten.int,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.view.default,
)
REARRANGEMENTS = (mx.reshape, mx.transpose, mx.unflatten, operator.getitem)


def author_names(
    node: torch.fx.Node, cls: type | None, position: int | None = None, count: int = 1
) -> list[str]:
    """The author's variables for `node` in the code of `cls`, the outermost first.

    Args:
        node: A value of the lowered graph.
        cls: The PyTorch class.
        position: Which of several results `node` is.
        count: How many results there are.
    """
    origin = node.meta.get("origin")
    if origin is None or "val" not in node.meta:
        return []
    _, cls = node.meta.get(HOISTED, ("", cls))
    return _followed(origin, lambda n: frames_in_class(n, cls), position, count)


def own_names(node: torch.fx.Node) -> list[str]:
    """The author's variables for `node`, in whatever code computes it."""
    origin = node.meta.get("origin")
    if origin is None:
        return []
    return _followed(origin, lambda n: [f for f in frames(n) if not is_torch(f)][::-1])


def _followed(
    origin: torch.fx.Node,
    inside: Callable[[torch.fx.Node], list[Frame]],
    position: int | None = None,
    count: int = 1,
) -> list[str]:
    """The variable that a captured value is assigned to; of what a helper returns, that of its caller first.

    Args:
        origin: The captured value.
        inside: The frames that may name a value, innermost first.
        position: Which of several results it is.
        count: How many results there are, 0 if that is not known.
    """
    if position is None and origin.target is operator.getitem:
        position, count = origin.args[1], 0  # type: ignore[assignment]
    found: list[str] = []
    place = position
    for depth, frame in enumerate(inside(origin)):
        names = assigned_names(frame)
        name = ""
        if len(names) == 1 and place is None and is_value(origin, frame):
            name = names[0]
        elif len(names) > 1 and place is not None and place < len(names):
            name = names[place] if depth or count in (0, len(names)) else ""
        if is_variable(name) and name not in MEANINGLESS:
            found.insert(0, name)
        if isinstance(statement(frame), ast.Return) and is_value(origin, frame):
            continue
        known = returned_names(frame)
        if name not in known:
            break
        place = known[name]
    if found or origin.target not in VIEWS or not origin.all_input_nodes:
        return found
    # The same array, seen otherwise
    return _followed(origin.all_input_nodes[0], inside)


def is_value(origin: torch.fx.Node, frame: Frame) -> bool:
    """Whether a captured value becomes what the statement at a frame makes, and no mere ingredient of it.

    Every call that it still goes through there takes it first, keeps its number of elements, and makes no
    number of a truth value.
    """
    own = frames(origin)
    if frame not in own:
        return False
    before, place = own[: own.index(frame)], statement(frame)
    seen: set[torch.fx.Node] = set()
    while origin not in seen:
        seen.add(origin)
        inside = [u for u in origin.users if _is_within(u, before, place)]
        if not inside:
            return True
        user = inside[0]
        if user.all_input_nodes[0] is not origin or not _is_alike(origin, user):
            return False
        origin = user
    return True


def _is_within(user: torch.fx.Node, outer: list[Frame], place: ast.stmt | None) -> bool:
    """Whether a call belongs to a statement that is run at the end of some frames, and makes an array."""
    if not isinstance(user.meta.get("val"), torch.Tensor | list | tuple):
        return False  # it reads or checks a size
    own = frames(user)
    depth = len(outer)
    return len(own) > depth and own[:depth] == outer and statement(own[depth]) is place


def _is_alike(before: torch.fx.Node, after: torch.fx.Node) -> bool:
    one, other = before.meta.get("val"), after.meta.get("val")
    if after.target in EXPANSIONS:
        return True
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    if (one.dtype is torch.bool) != (other.dtype is torch.bool):
        return False
    return _elements(one) == _elements(other)


def _elements(value: torch.Tensor) -> object:
    """The number of elements, as an expression."""
    sizes = (getattr(getattr(s, "node", None), "expr", s) for s in value.shape)
    return sympy.expand(sympy.prod(sizes))


def tuple_name(node: torch.fx.Node, cls: type | None) -> str:
    """The first of several names that the author's statement around `node` assigns.

    The one array that a call gives is mostly the first of its results, the others being None.
    """
    origin = node.meta.get("origin")
    for frame in frames_in_class(origin, cls) if origin is not None else ():
        first, *others = assigned_names(frame) or ("",)
        is_only = others and origin is not None and is_value(origin, frame)
        if is_only and is_variable(first) and first not in {"_", *MEANINGLESS}:
            return first
    return ""


def kind_name(node: torch.fx.Node) -> str:
    """What a value is, where nobody has a name for it."""
    if node.target in (mx.argsort, mx.argpartition):
        return "order"
    if node.target is mx.arange:
        return "positions"
    hint = node.meta.get("hint")
    is_mask = isinstance(hint, mx.array) and hint.dtype == mx.bool_
    return "mask" if is_mask else ""


def role_name(node: torch.fx.Node) -> str:
    """What its lowering calls `node`, or what it is to the one function that it goes into.

    That is `q`, `k` or `v` of an attention.
    """
    if "role" in node.meta:
        return node.meta["role"]
    while len(node.users) == 1:
        (user,) = node.users
        if user.target in ATTENTIONS:
            position = user.args.index(node) if node in user.args else 3
            return "qkv"[position] if position < 3 else ""
        if user.target not in REARRANGEMENTS:
            return ""
        node = user
    return ""


def argument_name(node: torch.fx.Node) -> str:
    """The parameter of `forward` under which some module receives `node`."""
    names = [name for _, name in argument_names(node) if is_variable(name)]
    return next((name for name in names if name not in MEANINGLESS), "")


def may_share(
    made: torch.fx.Node, before: torch.fx.Node, inputs: list[torch.fx.Node]
) -> bool:
    """Whether two values may have one name: truth values are no numbers, an input keeps its rank."""
    one, other = made.meta.get("hint"), before.meta.get("hint")
    if not isinstance(one, mx.array) or not isinstance(other, mx.array):
        return False
    kinds = [mx.issubdtype(hint.dtype, mx.floating) for hint in (one, other)]
    masks = [hint.dtype == mx.bool_ for hint in (one, other)]
    is_same = kinds[0] == kinds[1] and masks[0] == masks[1]
    return is_same and (before not in inputs or one.ndim == other.ndim)


def candidates(preferred: Iterable[str]) -> Iterator[str]:
    """Names to try, the preferred ones first; never ends."""
    seen: set[str] = set()
    wanted = [*preferred, "x", "y", "z"]
    for name in wanted:
        if is_variable(name) and name not in seen:
            seen.add(name)
            yield name
    stem = (
        next((name for name in wanted if is_variable(name)), "x").rstrip("0123456789_")
        or "x"
    )
    yield from (f"{stem}{i}" for i in itertools.count(1))
