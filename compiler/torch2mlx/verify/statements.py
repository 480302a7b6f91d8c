"""The statement of a generated class at which a difference begins.

The class runs once with a note after each statement: what its variables hold. Each of them stands for a value
of the captured graph, which PyTorch computes; the first statement after the last one that agrees is it.
"""

from __future__ import annotations

import ast
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import torch
import torch.fx

from torch2mlx.emit import syntax
from torch2mlx.emit.provenance import Origin, author_lines, origins_in
from torch2mlx.outline import Outlined
from torch2mlx.outline.operands import Invoke, Item, Loop, Op, Segment, invokes
from torch2mlx.verify.compare import Tolerance, deviation
from torch2mlx.verify.generated import Generated, instance
from torch2mlx.verify.sides import run_mlx

if TYPE_CHECKING:
    from torch2mlx.api import Program

Node = torch.fx.Node
NOTE = "_torch2mlx_note"


@dataclass
class Notes:
    """What the variables of one module hold during its first call.

    Attributes:
        owner: The module; None for no one.
        calls: How often it was called.
        values: Statement -> name -> array, in the order in which they ran.
    """

    owner: Any = None
    calls: int = 0
    values: list[tuple[int, dict[str, mx.array]]] = field(default_factory=list)


_notes = Notes()


def note(module: Any, index: int, values: dict[str, Any]) -> None:
    """What the code with notes calls: `index` is that of a statement, -1 when a call begins."""
    if module is not _notes.owner:
        return
    _notes.calls += index < 0
    if index >= 0 and _notes.calls == 1:
        # A copy: the generated code may assign to slices of an array
        arrays = {k: mx.array(v) for k, v in values.items() if isinstance(v, mx.array)}
        _notes.values.append((index, arrays))


@dataclass(frozen=True)
class WrongStatement:
    """Where a difference shows first.

    Attributes:
        origin: The statement that makes it.
        want: What PyTorch computes there; empty where nothing there is compared.
        got: What MLX does.
    """

    origin: Origin
    want: tuple[torch.Tensor, ...] = ()
    got: tuple[mx.array, ...] = ()


def wrong_statement(
    program: Program,
    tensors: Sequence[torch.Tensor],
    path: str,
    generated: Generated,
    reference: dict[Node, Any],
    tolerance: Tolerance,
) -> WrongStatement | None:
    """The statement that makes the difference of a module call, None where it cannot be told.

    Args:
        program: The compiled model.
        tensors: The inputs of the model.
        path: The module's path in PyTorch.
        generated: What it became.
        reference: What PyTorch computes for the nodes of the captured graph.
        tolerance: How far values may be apart.
    """
    tree = ast.parse(program.source)
    found = origins_in(tree, program.outlined, program.captured)
    owner, invoke = call_site(program.outlined, path)
    if invoke is not None and not isinstance(invoke.callee, Segment):
        return _calling(program.outlined, found, owner, invoke)
    if not reference:
        return None
    segment = invoke.callee if invoke is not None else program.outlined.model
    assert isinstance(segment, Segment)
    inside = [
        o for o in found if o.cls == generated.cls and _is_in_call(o, tree, o.cls)
    ]
    values = _run_with_notes(program, tensors, tree, generated, inside)
    nodes = instance_nodes(program.outlined, segment)
    return _first_wrong(inside, values, nodes, reference, tolerance)


def _first_wrong(
    inside: list[Origin],
    values: list[tuple[int, dict[str, mx.array]]],
    nodes: dict[Node, Node],
    reference: dict[Node, Any],
    tolerance: Tolerance,
) -> WrongStatement | None:
    suspects: list[Origin] = []
    for index, arrays in values:
        origin = inside[index]
        names = origin.made.names if origin.made is not None else {}
        pairs = [
            (wanted, arrays[name])
            for name, node in names.items()
            if (wanted := _wanted(nodes.get(node), reference)) is not None
            and name in arrays
        ]
        if not pairs:
            suspects += [origin] if origin.edited else []
            continue
        if any(deviation([w], [a], tolerance) is not None for w, a in pairs):
            want, got = zip(*pairs, strict=True)
            return WrongStatement((suspects or [origin])[0], want, got)
        suspects.clear()
    last = [o for o in inside if isinstance(o.node, ast.Return)]
    return WrongStatement((suspects + last)[0]) if suspects + last else None


def _wanted(node: Node | None, reference: dict[Node, Any]) -> torch.Tensor | None:
    if node is None or "val" not in node.meta or node.meta.get("origin") is None:
        return None
    value = reference.get(node.meta["origin"])
    return value if isinstance(value, torch.Tensor) else None


def _is_in_call(origin: Origin, tree: ast.Module, cls: str) -> bool:
    call = _call_of(tree, cls)
    first, last = call.lineno, call.end_lineno or call.lineno
    return origin.node is not call and first < origin.node.lineno <= last


def _call_of(tree: ast.Module, cls: str) -> ast.FunctionDef:
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls]
    return next(
        n
        for n in classes[0].body
        if isinstance(n, ast.FunctionDef) and n.name == "__call__"
    )


def _run_with_notes(
    program: Program,
    tensors: Sequence[torch.Tensor],
    tree: ast.Module,
    generated: Generated,
    inside: list[Origin],
) -> list[tuple[int, dict[str, mx.array]]]:
    numbers = {id(origin.node): i for i, origin in enumerate(inside)}
    call = _call_of(tree, generated.cls)
    call.body = [_noting(-1, []), *_with_notes(call.body, numbers, inside)]
    source = ast.unparse(ast.fix_missing_locations(tree))
    imported = f"from {__name__} import note as {NOTE}\n"
    model = program.with_source(imported + source).load()
    with _taking_notes(instance(model, generated.key)) as notes:
        # What raises has notes up to there
        with contextlib.suppress(Exception):
            run_mlx(model, program, tensors)
        return notes.values


@contextlib.contextmanager
def _taking_notes(owner: Any) -> Iterator[Notes]:
    global _notes
    _notes = Notes(owner)
    try:
        yield _notes
    finally:
        _notes = Notes()


def _with_notes(
    body: list[ast.stmt], numbers: dict[int, int], inside: list[Origin]
) -> list[ast.stmt]:
    result: list[ast.stmt] = []
    for statement in body:
        result.append(statement)
        index = numbers.get(id(statement))
        if index is not None:
            names = _names(inside[index])
            result += [_noting(index, names)] if names else []
    return result


def _names(origin: Origin) -> list[str]:
    if origin.made is not None and origin.made.names:
        return [name for name in origin.made.names if name.isidentifier()]
    if not origin.edited or not isinstance(origin.node, ast.Assign | ast.AugAssign):
        return []
    node = origin.node
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def _noting(index: int, names: list[str]) -> ast.stmt:
    keys: list[ast.expr | None] = [ast.Constant(name) for name in names]
    held = ast.Dict(keys, [syntax.name(name) for name in names])
    return ast.Expr(syntax.call(NOTE, [syntax.name("self"), ast.Constant(index), held]))


# The nodes of one instance of a class


def call_site(outlined: Outlined, path: str) -> tuple[Segment, Invoke | None]:
    """The segment that calls the module at `path`, and the call; the model itself is not called."""

    def search(segment: Segment, prefix: str) -> tuple[Segment, Invoke] | None:
        for invoke in (i for item in segment.items for i in invokes(item)):
            inner = f"{prefix}.{invoke.path}" if prefix else invoke.path
            if inner == path:
                return segment, invoke
            if isinstance(invoke.callee, Segment) and path.startswith(f"{inner}."):
                found = search(invoke.callee, inner)
                if found is not None:
                    return found
        return None

    return search(outlined.model, "") or (outlined.model, None)


def instance_nodes(outlined: Outlined, segment: Segment) -> dict[Node, Node]:
    """Nodes of the segment that a class was written from -> those of another instance of it."""
    template = outlined.instances.class_of[id(segment)].template
    nodes = dict(zip(template.segment.inputs, segment.inputs, strict=False))
    own = deque(segment.items)
    for item in template.items:
        # What is optional may be missing here
        if not own or _what(item) != _what(own[0]):
            continue
        other = own.popleft()
        if isinstance(item, Loop) and isinstance(other, Loop):
            for one, two in zip(item.steps, other.steps, strict=False):
                nodes |= zip(one.outputs, two.outputs, strict=False)
        nodes |= zip(item.outputs, other.outputs, strict=False)
    return nodes


def _what(item: Item) -> Any:
    """What an item calls: the same for the same item of two instances."""
    if isinstance(item, Op):
        return item.node.target
    return item.path if isinstance(item, Invoke) else tuple(item.bases)


def _calling(
    outlined: Outlined, found: list[Origin], owner: Segment, invoke: Invoke
) -> WrongStatement | None:
    """The statement that calls a layer, the innermost one, with the author's line of that call alone."""
    spec = outlined.instances.class_of[id(owner)]
    there = {b: a for a, b in instance_nodes(outlined, owner).items()}
    wanted = {there.get(node) for node in invoke.outputs}
    calls = [
        origin
        for origin in found
        if origin.cls == spec.name
        and origin.made is not None
        and wanted & {*origin.made.nodes}
    ]
    if not calls:
        return None
    sources = author_lines(invoke.outputs, spec.cls) or calls[-1].sources
    return WrongStatement(replace(calls[-1], sources=sources))
