"""The walk over the captured graph that asks the mapping tables node by node.

Everything that no table maps is collected, so that one error lists it all. Each result is checked
against PyTorch's shape and dtype for the example inputs: a lowering that is off cannot pass silently.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import mlx.core
import mlx.nn
import torch
import torch.fx
from torch._ops import OpOverload

import torch2mlx.layers
import torch2mlx.ops  # noqa: F401 - both fill the tables
from torch2mlx.capture import Captured
from torch2mlx.capture.opaque import MODULE, call_of
from torch2mlx.capture.provenance import calling_module, module_calls, source_line
from torch2mlx.errors import Unsupported, UnsupportedError
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.ir.names import snake_case
from torch2mlx.lower.assignments import merge_assignments
from torch2mlx.lower.facade import Decline, Recorder, Refuse, Traced, map_values, mx
from torch2mlx.lower.indexing import merge_indices, pick_from_stacks
from torch2mlx.lower.modules import lower_module
from torch2mlx.lower.places import keep_unsigned
from torch2mlx.lower.regions import FLAT, lower_flat
from torch2mlx.lower.registry import (
    FAILURES,
    LAYERS,
    OPS,
    Lowering,
    bind,
    mlx_dtype,
)
from torch2mlx.lower.sizes import SIZE_FUNCTIONS
from torch2mlx.lower.state import place_stores
from torch2mlx.lower.stubs import Stub, Stubs, given
from torch2mlx.lower.tied import tie_heads
from torch2mlx.lower.weights import moves_weight

RECURRENT = re.compile(r"(?:weight|bias)_[ih]h_l(\d+)(_reverse)?")
RECURRENT_OPS = {
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
}


@dataclass
class Lowered:
    """A lowered graph (see `torch2mlx.ir`).

    Attributes:
        graph: The graph; its output node's first argument is the list of the model's output values.
        ops: How many ATen calls of each overload were lowered by the op table.
        layers: How many became a layer, by layer class.
        stubs: Functions to fill in, for operators that nothing maps.
    """

    graph: torch.fx.Graph
    ops: Counter[str] = field(default_factory=Counter)
    layers: Counter[str] = field(default_factory=Counter)
    stubs: list[Stub] = field(default_factory=list)


def lower(captured: Captured, stubs: bool = False) -> Lowered:
    """Lower every node of a captured (and simplified) graph.

    Args:
        captured: The graph.
        stubs: Whether an operator that nothing maps becomes a call of a function to fill in.

    Raises:
        UnsupportedError: Some operators, or arguments of operators, are not mapped; it lists all.
    """
    return _Lowering(captured, Stubs() if stubs else None).run()


@dataclass(frozen=True)
class Survey:
    """What lowering makes of each call, refused or not.

    Attributes:
        graph: The lowered nodes, each with its call as `meta["origin"]`.
        refused: Captured call -> why nothing maps it.
        unreached: Calls that were not looked at, since what they take is refused and its size unknown.
    """

    graph: torch.fx.Graph
    refused: dict[torch.fx.Node, str]
    unreached: set[torch.fx.Node]


def survey(captured: Captured) -> Survey:
    """Ask the mapping tables about every node of a captured graph; nothing is raised."""
    lowering = _Lowering(captured)
    lowering.walk()
    refused, values = lowering.refused, lowering.values
    unreached = {n for n, value in values.items() if value is None and n not in refused}
    return Survey(lowering.result.graph, refused, unreached)


class _Lowering:
    def __init__(self, captured: Captured, stubs: Stubs | None = None):
        self.captured = captured
        self.stubs = stubs
        self.result = Lowered(torch.fx.Graph())
        self.recorder = Recorder(self.result.graph)
        self.recorder.place_layer = self._place_layer
        self.recorder.expr = captured.expr
        self.recorder.number = captured.number
        self.values: dict[torch.fx.Node, Any] = {}
        self.refused: dict[torch.fx.Node, str] = {}
        self.counts = _calls_by_module(captured.graph)
        self.alone = {key: count == 1 for key, count in self.counts.items()}
        for key in captured.state_keys:
            self.alone[key.rpartition(".")[0]] = False  # it also updates its buffer
        self.placed: dict[str, Layer] = {}
        self.inputs = {item.name for item in captured.inputs}

    def walk(self) -> None:
        """Lower node by node; what is refused is in `refused` afterwards."""
        with self.recorder.recording():
            for node in self.captured.graph.nodes:
                self.recorder.origin = node
                if node.op == "placeholder":
                    self._placeholder(node)
                elif node.op == "output":
                    self._output(node)
                elif any(self._failed(n) for n in node.all_input_nodes):
                    self.values[node] = None  # reported where it began
                else:
                    self._call(node)

    def run(self) -> Lowered:
        self.walk()
        if self.refused:
            raise UnsupportedError(_entries(self.refused))
        _tidy(self.result.graph)
        merge_indices(self.result.graph)
        pick_from_stacks(self.result.graph)
        merge_assignments(self.result.graph)
        place_stores(self.result.graph, self.captured)
        tie_heads(self.result.graph)
        keep_unsigned(self.result.graph)
        layers = (
            n.meta["layer"] for n in self.result.graph.nodes if n.op == "call_module"
        )
        self.result.layers.update(layer.cls.__name__ for layer in layers)
        return self.result

    def _failed(self, node: torch.fx.Node) -> bool:
        return node in self.values and self.values[node] is None

    def _placeholder(self, node: torch.fx.Node) -> None:
        value = node.meta["val"]
        if node.name in self.captured.weights:
            key = self.captured.weights[node.name]
            key = self.captured.aliases.get(key, key)
            weight = self.captured.folded.get(node.name)
            weight = weight or Weight((key,), trainable=key in self.captured.trainable)
            self.values[node] = self.recorder.append(
                "get_attr", key, (), {}, self._hint(value), weight=weight, val=value
            )
        elif node.name in self.inputs:
            self.values[node] = self.recorder.append(
                "placeholder", node.name, (), {}, self._hint(value), val=value
            )

    def _hint(self, value: torch.Tensor) -> mlx.core.array:
        shape = [self.captured.size(size) for size in value.shape]
        return mlx.core.zeros(shape, mlx_dtype(value.dtype))

    def _output(self, node: torch.fx.Node) -> None:
        outputs = map_values(
            lambda v: self._value(v) if isinstance(v, torch.fx.Node) else v,
            node.args[0],
        )
        if not self.refused:
            count = len(outputs) - len(self.captured.state)
            states = [self._state_value(name) for name in self.captured.state]
            returned = [self._unlike(value, states) for value in outputs[:count]]
            stores = [
                self._store(target, value)
                for target, value in zip(states, outputs[count:], strict=True)
            ]
            result = self.result.graph.output(self.recorder.create_arg(returned))
            if stores:
                result.args = (*result.args, self.recorder.create_arg(stores))

    def _state_value(self, name: str) -> Any:
        nodes = self.captured.graph.nodes
        return self.values[next(node for node in nodes if node.name == name)]

    def _unlike(self, value: Any, others: list[Any]) -> Any:
        """`value`, copied where it is the array of one of `others` itself."""
        is_same = any(value is other for other in others)
        return mx.array(value) if is_same else value

    def _store(self, target: Any, value: Any) -> Any:
        if value.node.op == "get_attr":
            value = mx.array(value)
        if value.dtype != target.dtype:
            value = value.astype(target.dtype)
        arguments = (target, None, value)
        val = target.node.meta["val"]
        return self.recorder.append(
            "call_function", intrinsics.store, arguments, {}, value.hint, val=val
        )

    def _value(self, value: Any) -> Any:
        """What stands for an argument of a captured node."""
        return self.values[value] if isinstance(value, torch.fx.Node) else value

    def _call(self, node: torch.fx.Node) -> None:
        try:
            self.values[node] = self._lowered(node)
        except Refuse as error:
            self._refuse(node, str(error))
        except Decline as error:
            self._refuse(
                node, f"it is no layer ({error}) and has no lowering of its own"
            )

    def _refuse(self, node: torch.fx.Node, hint: str) -> None:
        overload = node.target if isinstance(node.target, OpOverload) else MODULE
        if self.stubs is not None and overload is not MODULE:
            # A dtype that MLX lacks has no stub either
            with contextlib.suppress(Refuse):
                self.values[node] = self._stub_call(node, overload, hint, self.stubs)
                return
        self.refused[node] = hint
        self.values[node] = self._stand_in(node.meta.get("val"))

    def _stub_call(
        self, node: torch.fx.Node, overload: OpOverload, hint: str, stubs: Stubs
    ) -> Any:
        """A call of the function that the user is to fill in."""
        args, kwargs = map_values(self._value, (tuple(node.args), dict(node.kwargs)))
        named = given(overload, args, kwargs)
        value = node.meta["val"]
        several = isinstance(value, list | tuple)
        hints = [self._hint(v) for v in (value if several else [value])]
        meta = {} if several else {"val": value}
        result = self.recorder.append(
            "call_function",
            stubs.of(node, hint, named),
            named.values(),
            {},
            hints if several else hints[0],
            **meta,
        )
        self.result.stubs = list(stubs.made.values())
        return self._checked(node, list(result)) if several else result

    def _stand_in(self, value: Any) -> Any:
        """Something of the right shape for a refused result, so that what follows is looked at too."""
        if isinstance(value, list | tuple):
            return [self._stand_in(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return None
        try:
            hint = self._hint(value)
        except (TypeError, Refuse):
            return None  # its size is not known, or MLX lacks its dtype
        return self.recorder.append("placeholder", "refused", (), {}, hint, val=value)

    def _lowered(self, node: torch.fx.Node) -> Any:
        args, kwargs = (
            map_values(self._value, part)
            for part in (tuple(node.args), dict(node.kwargs))
        )
        if node.target is operator.getitem:
            return self._result(node, args[0][args[1]])
        if node.target in SIZE_FUNCTIONS:
            return self._size(node, args)
        if node.target is MODULE:
            return self._checked(node, lower_module(*args))
        if node.target in FLAT:
            return lower_flat(self.recorder, node, args, self._hint)
        if not isinstance(node.target, OpOverload):
            raise Refuse(
                "torch.export left this call in the graph, and nothing maps it"
            )
        result = self._by_layer(node, args, kwargs)
        if result is None:
            entry = OPS.get(node.target)
            if entry is None:
                raise Refuse(
                    "no entry in the op table: map it with torch2mlx.register_op, "
                    "or compile with stubs"
                )
            result = self._apply(node.target, entry, args, kwargs)
            self.result.ops[str(node.target)] += 1
        return self._checked(node, result)

    def _result(self, node: torch.fx.Node, value: Any) -> Any:
        """One of several results, which comes from the node that takes it."""
        if isinstance(value, Traced) and "nn_module_stack" in node.meta:
            meta = value.node.meta
            if meta["origin"] is node.args[0] and "val" in meta:
                meta["origin"] = node
        return value

    def _by_layer(self, node: torch.fx.Node, args: Any, kwargs: Any) -> Any:
        target: Any = node.target
        entry = LAYERS.get(target)
        if entry is None:
            return None
        last = next(reversed(self.result.graph.nodes), None)
        try:
            result = self._apply(node.target, entry, args, kwargs)
        except (Decline, Refuse):
            self._erase_after(last)
            return None
        return result

    def _apply(self, overload: Any, entry: Lowering, args: Any, kwargs: Any) -> Any:
        bound = bind(overload, entry, args, kwargs)
        try:
            return entry.function(*(bound[name] for name in entry.parameters))
        except FAILURES as error:
            reason = str(error).partition("\n")[0]
            raise Refuse(f"MLX cannot do this: {reason}") from error

    def _erase_after(self, last: torch.fx.Node | None) -> None:
        graph = self.result.graph
        for node in reversed(list(graph.nodes)):
            if node is last:
                return
            graph.erase_node(node)

    def _size(self, node: torch.fx.Node, args: tuple[Any, ...]) -> Any:
        size = node.meta.get("val")
        if hasattr(size, "node"):
            expr = self.captured.expr(size)
            if expr.is_Integer:
                return int(expr)
            value = SIZE_FUNCTIONS[node.target](*args)
            if isinstance(value, Traced) and value.node.op == "call_function":
                value.node.meta["expr"] = expr
            return value
        return SIZE_FUNCTIONS[node.target](*args)

    def _checked(self, node: torch.fx.Node, result: Any) -> Any:
        """`result` with the dtype that PyTorch gives it; a wrong shape is a fault of the lowering."""
        value = node.meta.get("val")
        if isinstance(value, list | tuple):
            return [
                self._fitted(node, r, v) for r, v in zip(result, value, strict=True)
            ]
        return self._fitted(node, result, value)

    def _fitted(self, node: torch.fx.Node, result: Any, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not isinstance(result, Traced):
            return result
        expected = tuple(self.captured.size(s) for s in value.shape)
        if tuple(result.hint.shape) != expected:
            raise Refuse(
                f"its lowering gives shape {tuple(result.hint.shape)} where PyTorch has {expected}: "
                "please report this"
            )
        dtype = mlx_dtype(value.dtype)
        if _needs_cast(result.dtype, dtype):
            result = result.astype(dtype)
        if "val" not in result.node.meta:
            self.recorder.describe(result.node, value)
        elif result.node.meta["origin"] is not node:  # this op does nothing
            _share_names(result.node, node)
        return result

    def _place_layer(self, layer: Layer) -> str:
        """The path of a layer: of the module that owns its weights, else of the call it stands for."""
        node = self.recorder.origin
        assert node is not None
        calls = module_calls(node)
        here = calls[-1].path if calls else ""
        if not layer.weights:
            if calls and self.alone.get(calls[-1].key):
                return here
            return ""
        sources = {source for w in layer.weights.values() for source in w.sources}
        if sources & self.captured.state_keys:
            raise Decline("forward writes to its arrays")
        owners = {self._owner(name, w) for name, w in layer.weights.items()}
        if None in owners or len(owners) != 1:
            raise Decline("its weights belong to different modules")
        path = owners.pop()
        assert path is not None
        called = {c.path for c in calls}
        if path in called and not (path == here and self._is_main(layer, calls[-1])):
            raise Decline("its module does more than this")
        if self.placed.setdefault(path, layer) != layer:
            raise Decline("its weights belong to a layer of another kind")
        return path or snake_case(layer.cls.__name__)  # the model is the layer itself

    def _is_main(self, layer: Layer, call: Any) -> bool:
        """Whether a layer is all that a module call does, or an embedding that it then scales."""
        if self.alone.get(call.key):
            return True
        is_embedding = layer.cls is mlx.nn.Embedding
        return is_embedding and self.counts[call.key] == 2

    def _owner(self, name: str, weight: Weight) -> str | None:
        """The module path of a layer whose array `name` comes from `weight`."""
        if weight.owner is not None:
            return weight.owner
        owner, _, attribute = weight.sources[0].rpartition(".")
        call = self.recorder.origin
        if call is not None and call.target is MODULE:
            return call_of(str(call.args[2])).path
        recurrent = RECURRENT.fullmatch(attribute)
        if recurrent:
            return self._recurrent_path(owner, *recurrent.groups())
        cut = next((step for step in weight.steps if step[0] == "slice"), None)
        if cut is not None:
            return self._cut_path(owner, attribute, weight, *cut[2:])
        if len(weight.sources) > 1 or attribute == name:
            return owner
        if attribute.endswith(f"_{name}"):  # in_proj_weight: the layer in_proj
            prefix = attribute[: -len(name) - 1]
            return f"{owner}.{prefix}" if owner else prefix
        return None

    def _cut_path(
        self, owner: str, attribute: str, weight: Weight, start: int, stop: int
    ) -> str | None:
        """Of PyTorch's attention, whose weights in_proj_* are those of q, k and v in a row."""
        if attribute not in ("in_proj_weight", "in_proj_bias") or len(weight.steps) > 1:
            return None
        size = self.captured.tensors[weight.sources[0]].shape[0] // 3
        if start % size or stop % size:
            return None
        name = "qkv"[start // size : stop // size]
        return f"{owner}.{name}_proj" if owner else f"{name}_proj"

    def _recurrent_path(self, owner: str, layer: str, reverse: str | None) -> str:
        """A recurrent module of several layers and directions is a list of them."""
        prefix = f"{owner}." if owner else ""
        keys = self.captured.tensors
        both = f"{prefix}weight_ih_l0_reverse" in keys
        if not both and f"{prefix}weight_ih_l1" not in keys:
            return owner
        place = int(layer) * (2 if both else 1) + bool(reverse)
        return f"{prefix}{place}"


def _entries(refused: dict[torch.fx.Node, str]) -> list[Unsupported]:
    counts = Counter(
        (str(node.target), calling_module(node), source_line(node), hint)
        for node, hint in refused.items()
    )
    return [
        Unsupported(op, module, line, count, hint)
        for (op, module, line, hint), count in counts.items()
    ]


def _share_names(value: torch.fx.Node, node: torch.fx.Node) -> None:
    """Let `value` also be known by the names under which modules receive `node`."""
    names = node.meta.get("forward_args", [])
    if names:
        own = value.meta.get(
            "forward_args", value.meta["origin"].meta.get("forward_args", [])
        )
        value.meta["forward_args"] = [
            *own,
            *(name for name in names if name not in own),
        ]


def _calls_by_module(graph: torch.fx.Graph) -> Counter[str]:
    """Module call -> how many operators it calls."""
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        calls = module_calls(node)
        if _first_state(node) or moves_weight(node):
            continue
        if node.op == "call_function" and calls and isinstance(node.target, OpOverload):
            for call in calls:
                counts[call.key] += 1
    return counts


def _first_state(node: torch.fx.Node) -> bool:
    """Whether a recurrent layer begins with these zeros, which it needs no operator for."""
    return node.target is torch.ops.aten.zeros.default and all(
        user.target in RECURRENT_OPS for user in node.users
    )


def _needs_cast(have: mlx.core.Dtype, want: mlx.core.Dtype) -> bool:
    """Whether PyTorch's dtype class, float width or signedness differs; MLX may keep narrower integers."""
    if have == want:
        return False
    integers = (mlx.core.signedinteger, mlx.core.unsignedinteger)
    signed = [
        mlx.core.issubdtype(dtype, mlx.core.signedinteger) for dtype in (have, want)
    ]
    if all(signed):
        return have.size > want.size or (want.size < 4 and have != want)
    return not (mlx.core.issubdtype(have, integers[1]) and have == want)


def _tidy(graph: torch.fx.Graph) -> None:
    """Drop what nothing uses; inputs stay."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
