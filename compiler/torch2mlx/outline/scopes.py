"""The tree of module calls, from the module stack that every node carries.

A call becomes a class later, unless it is *dissolved*: its statements then stand in its parent. Containers
(`Sequential`, `ModuleList`), modules that only wrap a function, and calls that could not be
executed in one piece are dissolved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import networkx
import torch
import torch.fx

from torch2mlx.capture.provenance import ModuleCall, module_calls
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Layer
from torch2mlx.outline.operands import HOISTED

CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
PARAMETERS = (torch.nn.ParameterList, torch.nn.ParameterDict)


def is_container(cls: type | None) -> bool:
    """Whether modules of this class only hold others, or call them one after the other."""
    if cls is None or not issubclass(cls, CONTAINERS):
        return False
    return (
        not issubclass(cls, torch.nn.Sequential)
        or cls.forward is torch.nn.Sequential.forward
    )


# Functions that have a layer of the same meaning: a ReLU in a list of layers must be a module
LAYER_OF = {
    nn.relu: nn.ReLU,
    nn.relu6: nn.ReLU6,
    nn.silu: nn.SiLU,
    nn.gelu: nn.GELU,
    nn.mish: nn.Mish,
    nn.hardswish: nn.Hardswish,
    nn.softsign: nn.Softsign,
    nn.selu: nn.SELU,
    nn.log_sigmoid: nn.LogSigmoid,
    mx.tanh: nn.Tanh,
    mx.sigmoid: nn.Sigmoid,
}


@dataclass(eq=False)
class Scope:
    """One call of one module.

    Attributes:
        call: Which module, which call.
        parent: The call that contains it.
        children: The calls and nodes directly in it, in execution order.
        dissolved: Whether its statements stand in its parent.
    """

    call: ModuleCall
    parent: Scope | None = None
    children: list[Scope | torch.fx.Node] = field(default_factory=list)
    dissolved: bool = False

    @property
    def path(self) -> str:
        """The module's path."""
        return self.call.path

    def ancestors(self) -> Iterator[Scope]:
        """This call and those that contain it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def below(self) -> Iterator[Scope]:
        """All calls within this one."""
        for child in self.children:
            if isinstance(child, Scope):
                yield child
                yield from child.below()

    def nodes(self) -> list[torch.fx.Node]:
        """All nodes of this call and the calls in it."""
        found: list[torch.fx.Node] = []
        for child in self.children:
            found.extend(child.nodes() if isinstance(child, Scope) else [child])
        return found


def is_size(node: torch.fx.Node) -> bool:
    """Whether a node is a size, read from a shape, not an array or a number read from one."""
    hint = node.meta.get("hint")
    return isinstance(hint, int | float) and node.target is not intrinsics.item


def scope_calls(node: torch.fx.Node) -> tuple[ModuleCall, ...]:
    """The module calls around a lowered node; a layer stands outside its own module."""
    if "calls" in node.meta:
        return node.meta["calls"][1:]
    origin = node.meta.get("origin")
    calls = module_calls(origin) if origin is not None else ()
    if node.op == "call_module":
        inside = [
            i for i, call in enumerate(calls) if call.path == node.target and call.path
        ]
        calls = calls[: inside[0]] if inside else calls
    return calls[1:]


def shared_calls(chains: list[tuple[ModuleCall, ...]]) -> tuple[ModuleCall, ...]:
    """The calls that all chains of calls begin with."""
    shared = chains[0]
    for chain in chains[1:]:
        length = 0
        while length < min(len(shared), len(chain)) and shared[length] == chain[length]:
            length += 1
        shared = shared[:length]
    return shared


def build_scopes(graph: torch.fx.Graph, model_class: str) -> Scope:
    """The call tree of a lowered graph; sizes, inputs and weights belong to no call."""
    root = Scope(ModuleCall("", 0, model_class))
    scopes: dict[tuple[str, ...], Scope] = {(): root}
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr", "output") or is_size(node):
            continue
        scope = root
        keys: tuple[str, ...] = ()
        for call in scope_calls(node):
            keys = (*keys, call.key)
            if keys not in scopes:
                scopes[keys] = Scope(call, scope)
                scope.children.append(scopes[keys])
            scope = scopes[keys]
        scope.children.append(node)
    return root


def dissolve_containers(scope: Scope, classes: dict[str, type]) -> None:
    """Dissolve calls of plain containers and of modules that are no more than a function.

    A function that stands in a list stays for now: it may be a layer of that list.
    """
    for child in scope.children:
        if isinstance(child, Scope):
            dissolve_containers(child, classes)
            cls = classes.get(child.path)
            listed = is_container(classes.get(child.path.rpartition(".")[0]))
            function = _is_function(child, cls) and not (listed and as_layer(child))
            child.dissolved = child.dissolved or is_container(cls) or function


def as_layer(scope: Scope) -> Layer | None:
    """The layer that a call of one activation is; None when it is anything else."""
    node = scope.children[0] if len(scope.children) == 1 else scope
    if isinstance(node, Scope):
        return None
    one_argument = len(node.args) == 1 and not node.kwargs
    cls = LAYER_OF.get(node.target) if one_argument else None  # type: ignore[arg-type]
    return Layer(cls) if cls is not None else None


def _is_function(scope: Scope, cls: type | None) -> bool:
    """No weights, no submodules of its own, and little code: an activation, a Permute, a DropPath."""
    nodes = scope.nodes()
    plain = all(n.op == "call_function" for n in nodes) and not any(
        arg.op == "get_attr" and below(str(arg.target), scope.path) is not None
        for n in nodes
        for arg in n.all_input_nodes
    )
    from_torch = cls is not None and cls.__module__.startswith("torch.nn.")
    return plain and (from_torch or len(nodes) <= 2)


def dissolve_foreign(scope: Scope) -> None:
    """Dissolve calls that contain a call of a module which they do not own."""
    for child in scope.children:
        if isinstance(child, Scope):
            dissolve_foreign(child)
    if scope.parent is not None and any(
        not _owned(c, scope.path) for c in _flat(scope)
    ):
        scope.dissolved = True


def dissolve_reached(root: Scope) -> None:
    """Dissolve calls of modules whose own submodules are also called from outside them."""
    scopes = list(root.below())
    paths = {scope.path for scope in scopes if not scope.dissolved}
    reached: set[str] = set()
    for scope in [root, *scopes]:
        around = {ancestor.path for ancestor in scope.ancestors()}
        for child in scope.children:
            path = child.path if isinstance(child, Scope) else str(child.target)
            is_layer = isinstance(child, torch.fx.Node) and child.op == "call_module"
            if isinstance(child, Scope) or (is_layer and HOISTED not in child.meta):
                reached |= {p for p in _owners(path) if p in paths and p not in around}
    for scope in scopes:
        scope.dissolved = scope.dissolved or scope.path in reached


def _owners(path: str) -> list[str]:
    """The paths of all modules that a path goes through, without its own."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _owned(child: Scope | torch.fx.Node, path: str) -> bool:
    if isinstance(child, torch.fx.Node):
        inside = child.op != "call_module" or not child.target
        return inside or below(str(child.target), path) is not None
    return below(child.path, path) is not None


def below(path: str, prefix: str) -> str | None:
    """`path` relative to the module at `prefix`; None when it is not inside."""
    if not prefix:
        return path
    return path[len(prefix) + 1 :] if path.startswith(prefix + ".") else None


def order(scope: Scope) -> None:
    """Put the children of every call into an order in which each can run in one piece.

    A call that cannot (what it computes is needed by code that it needs itself) is dissolved.
    """
    while True:
        graph = networkx.DiGraph()
        items = list(_flat(scope))
        owner = {n: i for i, item in enumerate(items) for n in _nodes_of(item)}
        graph.add_nodes_from(range(len(items)))
        for i, item in enumerate(items):
            for node in _nodes_of(item):
                for source in (*_array_inputs(node), *_reads_before(node)):
                    if source in owner and owner[source] != i:
                        graph.add_edge(owner[source], i)
        try:
            ranked = list(networkx.lexicographical_topological_sort(graph))
        except networkx.NetworkXUnfeasible:
            cycle = {i for edge in networkx.find_cycle(graph) for i in edge}
            for i in cycle:
                found = items[i]
                if isinstance(found, Scope):
                    found.dissolved = True
            continue
        scope.children = [items[i] for i in ranked]
        break
    for child in scope.children:
        if isinstance(child, Scope):
            order(child)


def _flat(scope: Scope) -> list[Scope | torch.fx.Node]:
    """Children with dissolved calls replaced by theirs."""
    found: list[Scope | torch.fx.Node] = []
    for child in scope.children:
        if isinstance(child, Scope) and child.dissolved:
            found.extend(_flat(child))
        else:
            found.append(child)
    return found


def _reads_before(node: torch.fx.Node) -> list[torch.fx.Node]:
    """What takes the array that a store writes to, before it does."""
    if node.target is not intrinsics.store:
        return []
    target = node.args[0]
    assert isinstance(target, torch.fx.Node)
    return [user for user in target.users if user is not node]


def _nodes_of(item: Scope | torch.fx.Node) -> list[torch.fx.Node]:
    return item.nodes() if isinstance(item, Scope) else [item]


def _array_inputs(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The arrays that a node needs, through the sizes that it takes."""
    found: list[torch.fx.Node] = []
    for source in node.all_input_nodes:
        found.extend(_array_inputs(source) if is_size(source) else [source])
    return found
