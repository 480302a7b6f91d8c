"""Make in-place operators functional, with all that PyTorch's shared memory implies.

    v = select(x, 1, 0)                  ->   v = select(x, 1, 0)
    w = slice(x, 0, 0, 2)                     v2 = add(v, 1)
    add_(v, 1)                                x2 = select_scatter(x, v2, 1, 0)
    y = mul(x, w)                             y = mul(x2, slice(x2, 0, 0, 2))

Every value belongs to a base, whose memory it shares. A write to a value is a write to what it views,
down to the base; another view of that base is made anew when it is next read. What buffers and inputs
hold after they were written, the graph returns last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

from torch2mlx.capture import Captured
from torch2mlx.capture.assignments import rebind
from torch2mlx.capture.provenance import unsupported
from torch2mlx.ir.regions import is_inside, region
from torch2mlx.passes.overloads import functional_call, mutated_names
from torch2mlx.passes.rewrite import (
    arguments,
    call,
    name_as,
    same_shape,
    tensor_of,
)
from torch2mlx.passes.state import (
    BATCH_NORMS,
    note_state,
    statistics,
    updates_statistics,
)
from torch2mlx.passes.views import viewed, written

aten = torch.ops.aten

# In-place operators that change how a tensor is viewed instead of what it holds.
REVIEWING = {
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.transpose_.default: aten.transpose.int,
    aten.swapdims_.default: aten.swapdims.default,
    aten.swapaxes_.default: aten.swapaxes.default,
    aten.t_.default: aten.t.default,
    aten.detach_.default: aten.detach.default,
    aten.as_strided_.default: aten.as_strided.default,
}


def functionalise(captured: Captured) -> bool:
    """Replace each in-place call by its functional form, and let later reads see what it wrote.

    Raises:
        UnsupportedError: `forward` writes to a parameter, through a view whose base cannot be told, or
            by an operator that has no functional form.
    """
    nodes = captured.graph.nodes
    writes = (_is_mutable, updates_statistics, lambda node: node.target is rebind)
    if not any(does(node) for node in nodes for does in writes):
        return False
    _Functionalise(captured).run()
    return True


def _is_mutable(node: torch.fx.Node) -> bool:
    if not isinstance(node.target, OpOverload) or node.target in BATCH_NORMS:
        return False
    return node.target._schema.is_mutable


def _keeps_dtype(node: torch.fx.Node) -> bool:
    """Whether its operands cannot give a floating-point call another dtype than what it writes to."""
    assert isinstance(node.target, OpOverload)
    own = tensor_of(node)
    if (
        own is None
        or not own.is_floating_point()
        or not node.target._schema.name.endswith("_")
    ):
        return False
    operands = [tensor_of(operand) for operand in node.all_input_nodes]
    return all(x is None or x.dtype == own.dtype for x in operands)


class _Functionalise:
    def __init__(self, captured: Captured):
        self.captured = captured
        # View -> what it views
        self.base: dict[torch.fx.Node, torch.fx.Node] = {}
        # In-place call -> its operand
        self.same: dict[torch.fx.Node, torch.fx.Node] = {}
        # Value -> what holds it now
        self.current: dict[torch.fx.Node, torch.fx.Node] = {}
        # Base -> how often it was written, and the module stack of the last write
        self.writes: dict[torch.fx.Node, int] = {}
        self.writers: dict[torch.fx.Node, Any] = {}
        # Buffer -> new value
        self.rebound: dict[torch.fx.Node, torch.fx.Node] = {}
        # View -> the writes that `current` shows
        self.seen: dict[torch.fx.Node, int] = {}
        # Base -> call that views several
        self.joined: dict[torch.fx.Node, torch.fx.Node] = {}

    def run(self) -> None:
        mutable = []
        for node in list(self.captured.graph.nodes):
            self.here = node
            operands, origins = (node.args, node.kwargs), viewed(node)
            node.args, node.kwargs = map_arg(operands, self._read)  # type: ignore[misc]
            if node.target is rebind:
                buffer, value = operands[0]
                self.rebound[buffer] = value
                self.writers[buffer] = node.meta["nn_module_stack"]
                mutable.append(node)
            elif _is_mutable(node):
                self._mutate(node, *operands)
                mutable.append(node)
            elif updates_statistics(node):
                self._update_statistics(node, *operands[0])
            elif len(origins) == 1:
                self._note_view(node, origins[0])
            elif origins:
                bases = [
                    self._root(self.same.get(origin, origin)) for origin in origins
                ]
                for base in (node, *bases):
                    self.joined[base] = node
        self._return_state()
        for node in reversed(mutable):
            self.captured.graph.erase_node(node)

    def _return_state(self) -> None:
        """Let the graph also return what the buffers and inputs hold that were written."""
        roots = dict.fromkeys([*self.writes, *self.rebound])
        written = [root for root in roots if root.op == "placeholder"]
        if not written:
            return
        output = next(iter(reversed(self.captured.graph.nodes)))
        held = [
            (
                self._read(self.rebound[root])
                if root in self.rebound
                else self.current[root]
            )
            for root in written
        ]
        output.args = ((*output.args[0], *held),)  # type: ignore[misc]
        self.captured.state = {root.name: self.writers[root] for root in written}
        note_state(self.captured)

    def _update_statistics(self, node: torch.fx.Node, *args: Any) -> None:
        """The running statistics that a batch norm writes to beside what its schema says."""
        buffers, momentum = args[3:5], arguments(node)["momentum"]
        if None in buffers:
            return
        for buffer, statistic in zip(buffers, statistics(node), strict=True):
            old = call(node, aten.mul.Tensor, self._read(buffer), 1 - momentum)
            new = call(node, aten.mul.Tensor, statistic, momentum)
            value = call(node, aten.add.Tensor, old, new)
            target: Any = self.same.get(buffer, buffer)
            self._write(target, value)

    def _note_view(self, view: torch.fx.Node, origin: torch.fx.Node) -> None:
        self.base[view] = self.same.get(origin, origin)
        self.seen[view] = self.writes.get(self._root(view), 0)

    def _root(self, node: torch.fx.Node) -> torch.fx.Node:
        while node in self.base:
            node = self.base[node]
        return node

    def _read(self, node: torch.fx.Node) -> torch.fx.Node:
        """What holds the value of `node` now."""
        node = self.same.get(node, node)
        if node in self.base and self.seen[node] != self.writes.get(
            self._root(node), 0
        ):
            self.current[node] = self._viewed_anew(node)
            self.seen[node] = self.writes[self._root(node)]
        return self.current.get(node, node)

    def _viewed_anew(self, view: torch.fx.Node) -> torch.fx.Node:
        target = view.target
        if target is aten.as_strided.default:
            raise unsupported(view, "it views memory that is written to later")
        if target in (aten.view.default, aten._unsafe_view.default):
            target = aten.reshape.default  # the new base may have other strides
        base = self._read(self.base[view])
        return call(self.here, target, base, *view.args[1:], origin=view, **view.kwargs)

    def _mutate(self, node: torch.fx.Node, args: Any, kwargs: Any) -> None:
        assert isinstance(node.target, OpOverload)
        if node.target in REVIEWING:
            view = call(node, REVIEWING[node.target], *node.args, **node.kwargs)
            self._note_view(view, args[0])
            self.same[node] = view
            return
        parameters = (a.name for a in node.target._schema.arguments)
        given = dict(zip(parameters, args, strict=False)) | kwargs
        written_to = [
            given[name] for name in mutated_names(node.target) if name in given
        ]
        if len(written_to) != 1 or not isinstance(written_to[0], torch.fx.Node):
            raise unsupported(node, "it writes to several tensors")
        target = self.same.get(written_to[0], written_to[0])
        if node.target is aten.copy_.default and self._is_same_view(*args[:2]):
            self.same[node] = target  # what `y[1:] += z` ends with
            return
        value = self._functional_call(node, target)
        name_as(value, node)
        self._write(target, value)
        self.same[node] = target

    def _is_same_view(self, one: Any, other: Any) -> bool:
        """Whether both are the same part of the same tensor."""
        one, other = self.same.get(one, one), self.same.get(other, other)
        if one is other:
            return True
        if one not in self.base or other not in self.base:
            return False
        calls = [(v.target, v.args[1:], v.kwargs) for v in (one, other)]
        return calls[0] == calls[1] and self._is_same_view(
            self.base[one], self.base[other]
        )

    def _functional_call(
        self, node: torch.fx.Node, written_to: torch.fx.Node
    ) -> torch.fx.Node:
        """The functional form of an in-place call, in the dtype of what it writes to."""
        assert isinstance(node.target, OpOverload)
        if node.target is aten.copy_.default:
            value = self._copied(node)
        else:
            found = functional_call(node.target, arguments(node))
            if found is None:
                raise unsupported(node, "it writes in place and has no functional form")
            form, args, kwargs = found
            result = node.meta["val"] if _keeps_dtype(node) else None
            value = call(node, form, *args, result=result, **kwargs)
        own, new = tensor_of(written_to), tensor_of(value)
        assert own is not None
        assert new is not None
        if not same_shape(self.captured, own, new):
            raise unsupported(node, "it changes the shape of what it writes to")
        if new.dtype != own.dtype:
            value = call(node, aten.to.dtype, value, own.dtype)
        return value

    def _copied(self, node: torch.fx.Node) -> torch.fx.Node:
        """`copy_` of something of the same shape is that thing."""
        x, source = node.args[:2]
        own, value = tensor_of(x), tensor_of(source)
        if (
            own is not None
            and value is not None
            and same_shape(self.captured, own, value)
        ):
            assert isinstance(source, torch.fx.Node)
            return source
        return call(node, aten.copy.default, x, source)

    def _write(self, node: torch.fx.Node, value: torch.fx.Node) -> None:
        """`value` is now what `node` holds, and so what it views."""
        root = self._root(node)
        self._check_writable(root)
        updates = {node: value}
        while node in self.base:
            base = self.base[node]
            if isinstance(base.meta["val"], list | tuple):
                # The node is one of several views, or of several results
                if base not in self.base:
                    break
                base = self.base[base]
            new = written(self.here, node, self._read(base), value)
            if new is None:
                how = node.args[0].target if base is not self.base[node] else node.target  # type: ignore[union-attr]
                raise unsupported(self.here, f"it writes through a view made by {how}")
            node, value = base, new
            updates[node] = value
        self.writes[root] = self.writes.get(root, 0) + 1
        self.writers[root] = self.here.meta.get("nn_module_stack") or {}
        self.current |= updates
        self.seen |= dict.fromkeys(updates, self.writes[root])

    def _check_writable(self, root: torch.fx.Node) -> None:
        if not is_inside(region(root), region(self.here)):
            raise unsupported(
                self.here,
                "it writes, in a branch or a loop, to what is made outside of it: write to a copy",
            )
        if root in self.joined:
            raise unsupported(
                self.here,
                f"it writes to what {self.joined[root].target} views together",
            )
        key = self.captured.weights.get(root.name)
        shared = {*self.captured.aliases, *self.captured.aliases.values()}
        if key in self.captured.trainable:
            renorm = self.here.target is aten.embedding_renorm_.default
            why = "`max_norm` is not mapped: it makes " if renorm else ""
            raise unsupported(
                self.here,
                f"{why}forward {'write' if renorm else 'writes'} to the parameter `{key}`: "
                "make it a buffer, or write to a copy",
            )
        if key in shared:
            raise unsupported(
                self.here,
                f"forward writes to `{key}`, which is also known by another name",
            )
