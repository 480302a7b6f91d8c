"""Where the buffers and inputs that forward writes to get their new values, on the lowered graph.

A `store` is put where nothing reads the old value any more; what comes after it reads the buffer again. It
belongs to the call of the module that owns the buffer, or else to the end of the model.

w = assign(self.cache, index, x)          s = store(self.cache, index, x)     # self.cache[index] = x
y = f(w)                              ->  y = f(s)                            # y = f(self.cache)
store(self.cache, None, w)
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import ModuleCall, calls_in, module_calls
from torch2mlx.ir import intrinsics
from torch2mlx_templates.helpers import assign

Node = torch.fx.Node
Calls = tuple[ModuleCall, ...]


def place_stores(graph: torch.fx.Graph, captured: Captured) -> None:
    """Move the stores of a lowered graph to where they belong.

    Args:
        graph: Its output's second argument is the list of stores, in the order of `captured.state`.
        captured: The model that it was lowered from.
    """
    output = next(iter(reversed(graph.nodes)))
    if len(output.args) < 2:
        return
    stores: Any = output.args[1]
    last: list[Node] = []
    for name, store in zip(captured.state, stores, strict=True):
        calls = _owner_calls(captured, name, store)
        store.meta["calls"] = calls or ()
        for wrapped in store.all_input_nodes[1:]:
            if wrapped.meta["origin"].op == "output":
                wrapped.meta["calls"] = calls or ()
        if calls is None:
            last.append(store)
            continue
        _copy_foreign(graph, store)
        last.append(_write_in_place(graph, store) or _write_early(graph, store))
    output.args = (output.args[0], last)


def _owner_calls(captured: Captured, name: str, store: Node) -> Calls | None:
    """The call of the module that owns a buffer; None where that cannot update it in order."""
    target = _target(store)
    if target.op == "placeholder":
        return ()
    owner = captured.weights[name].rpartition(".")[0]
    if not owner:
        return ()
    calls = calls_in(captured.state[name])
    places = [i for i, call in enumerate(calls) if call.path == owner]
    again = any(
        call.path == owner and call.call
        for node in captured.graph.nodes
        for call in module_calls(node)
    )
    if not places or again:
        return None
    prefix = calls[: places[-1] + 1]
    readers = [scope for user in _readers(store) for scope in _scopes(user)]
    if any(scope[: len(prefix)] != _keys(prefix) for scope in readers):
        return None
    return prefix


def _scopes(node: Node) -> list[tuple[str, ...]]:
    if isinstance(node.meta["hint"], int):
        return []
    calls = node.meta.get("calls")
    return [_keys(module_calls(node.meta["origin"]) if calls is None else calls)]


def _keys(calls: Calls) -> tuple[str, ...]:
    return tuple(call.key for call in calls)


def _target(store: Node) -> Node:
    target = store.args[0]
    assert isinstance(target, Node)
    return target


def _readers(store: Node) -> list[Node]:
    """What else takes the array that is written to."""
    return [user for user in _target(store).users if user is not store]


def _copy_foreign(graph: torch.fx.Graph, store: Node) -> None:
    """Let a buffer get an array of its own where the value comes from elsewhere."""
    value: Any = store.args[2]
    own = _keys(store.meta["calls"])
    scopes = [scope[: len(own)] for scope in _scopes(value)]
    if value.op != "placeholder" and all(scope == own for scope in scopes):
        return
    with graph.inserting_before(store):
        copy = graph.call_function(mx.array, (value,))
    copy.meta.update(value.meta, calls=store.meta["calls"])
    store.args = (*store.args[:2], copy)


def _write_early(graph: torch.fx.Graph, store: Node) -> Node:
    """Put a store of a whole array right behind the last read of the old one."""
    value: Any = store.args[2]
    rank = {node: i for i, node in enumerate(graph.nodes)}
    latest = max([value, *_readers(store)], key=rank.__getitem__)
    latest.append(store)
    later = [u for u in value.users if rank[u] > rank[latest] and u is not store]
    for user in later:
        # The caller's array may change once more, what is returned may not
        if user.op != "output" or _target(store).op == "get_attr":
            user.replace_input_with(value, store)
    return store


def _write_in_place(graph: torch.fx.Graph, store: Node) -> Node | None:
    """Stores of parts for the writes that lead from the old value to the new one.

    None where another name could see that the array changes.
    """
    value: Any = store.args[2]
    writes: list[Node] = []
    while isinstance(value, Node) and value.target is assign:
        writes.insert(0, value)
        value = value.args[0]
    if not writes or value is not _target(store):
        return None
    rank = {node: i for i, node in enumerate(graph.nodes)}
    for before, write in zip([value, *writes], [*writes, None], strict=True):
        readers = [u for u in before.users if u not in (store, write)]
        if not all(map(_takes_only, readers)):
            return None
        if write is not None and any(rank[user] > rank[write] for user in readers):
            return None
    held = value
    for write in writes:
        with graph.inserting_before(write):
            new = graph.call_function(intrinsics.store, (held, *write.args[1:]))
        new.meta.update(write.meta, calls=store.meta["calls"])
        write.replace_all_uses_with(new)
        graph.erase_node(write)
        held = new
    output = next(iter(store.users))
    output.args = (output.args[0], [s for s in output.args[1] if s is not store])  # type: ignore[union-attr]
    graph.erase_node(store)
    return held


def _takes_only(node: Node) -> bool:
    """Whether a call makes a new array of what it takes."""
    return node.op == "call_function" and intrinsics.makes_new(node.target)
