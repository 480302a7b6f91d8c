"""Names of local variables: the author's, or what the value is."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator

import mlx.core as mx
import torch.fx

from torch2mlx.capture.provenance import (
    assigned_names,
    frames,
    frames_in_class,
    is_torch,
)
from torch2mlx.ir.names import is_variable
from torch2mlx.outline.operands import HOISTED
from torch2mlx.outline.segments import argument_names
from torch2mlx_templates.helpers import masked_attention

MEANINGLESS = frozenset({"ret", "result", "input", "output"})
ATTENTIONS = (mx.fast.scaled_dot_product_attention, masked_attention)
REARRANGEMENTS = (mx.reshape, mx.transpose, mx.unflatten, operator.getitem)


def author_name(
    node: torch.fx.Node, cls: type | None, position: int | None = None, count: int = 1
) -> str:
    """The author's variable for `node` in the code of `cls`, "" where there is none.

    Args:
        node: A value of the lowered graph.
        cls: The PyTorch class.
        position: Which of several results `node` is.
        count: How many results there are.
    """
    origin = node.meta.get("origin")
    if origin is None or "val" not in node.meta:
        return ""
    _, cls = node.meta.get(HOISTED, ("", cls))
    for frame in frames_in_class(origin, cls):
        names = assigned_names(frame)
        name = names[position or 0] if len(names) == count else ""
        if is_variable(name) and name not in MEANINGLESS:
            return name
    return ""


def own_name(node: torch.fx.Node) -> str:
    """The variable that the innermost of the author's statements that compute `node` assigns."""
    origin = node.meta.get("origin")
    own = [f for f in frames(origin) if not is_torch(f)] if origin is not None else []
    names = assigned_names(own[-1]) if own else ()
    return names[0] if len(names) == 1 and is_variable(names[0]) else ""


def tuple_name(node: torch.fx.Node, cls: type | None) -> str:
    """The first of several names that the author's statement around `node` assigns.

    The one array that a call gives is mostly the first of its results, the others being None.
    """
    origin = node.meta.get("origin")
    for frame in frames_in_class(origin, cls) if origin is not None else ():
        names = assigned_names(frame)
        if len(names) > 1 and is_variable(names[0]) and names[0] != "_":
            return names[0]
    return ""


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
