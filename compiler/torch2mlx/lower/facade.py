"""`mx`, `nn` and `helpers` as lowerings see them: plain MLX on arrays, a recorder on traced values.

A lowering is ordinary MLX code. While a graph is being lowered a `Recorder` is active, and every call
through this facade appends a node to the lowered graph; otherwise the call just computes. Each traced
value carries a *hint*: the lazy MLX array that it is for the example inputs. MLX infers shapes and dtypes
without computing anything, so a call that MLX would refuse fails here, at compile time.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core
import mlx.nn
import sympy
import torch.fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.proxy import GraphAppendingTracer
from torch.utils._sympy.functions import FloorDiv

from torch2mlx.ir import intrinsics
from torch2mlx.ir.evaluating import EVALUATING
from torch2mlx.ir.layer import Layer, Weight
from torch2mlx.lower.comparison import holds

_active: list[Recorder] = []


class Refuse(Exception):
    """Raised by a lowering that cannot express its arguments: the message says which, and why."""


class Decline(Exception):
    """Raised where a call cannot become a layer; the op table is asked instead."""


def map_values(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with `function` applied to each leaf of its lists, tuples, dicts and slices."""
    if isinstance(value, tuple | list):
        items = [map_values(function, item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: map_values(function, item) for key, item in value.items()}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return slice(*(map_values(function, part) for part in parts))
    return function(value)


class Recorder(GraphAppendingTracer):
    """Appends what lowerings call to `graph`.

    Attributes:
        origin: The captured node that is being lowered; new nodes remember it.
        place_layer: Given a layer, says its path in the model (raises `Decline` where it has none).
        expr: Given a symbolic size, gives its expression over the sizes of the inputs.
        number: Given a symbolic size or number, says what it is for the example inputs.
    """

    def __init__(self, graph: torch.fx.Graph):
        super().__init__(graph)
        self.origin: torch.fx.Node | None = None
        self.place_layer: Callable[[Layer], str] = lambda layer: ""
        self.expr: Callable[[Any], Any] = lambda size: size.node.expr
        self.number: Callable[[Any], Any] = lambda size: size

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """While this is open, calls through the facade are recorded here."""
        _active.append(self)
        try:
            yield
        finally:
            _active.pop()

    def proxy(self, node: torch.fx.Node) -> Traced:
        return Traced(node, self)

    def create_arg(self, a: Any) -> Any:
        return map_values(lambda v: v.node if isinstance(v, Traced) else v, a)

    def create_proxy(  # type: ignore[override]
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *_: Any,
        **__: Any,
    ) -> Traced:
        if target in EVALUATING:
            return self._evaluating(kind, target, args, kwargs)
        hint = target(*hint_of(args), **hint_of(kwargs))
        meta = {"expr": _expr(target, args)} if isinstance(hint, int) else {}
        return self.append(kind, target, args, kwargs, hint, **meta)

    def _evaluating(self, kind: str, target: Any, args: Any, kwargs: Any) -> Traced:
        """A call whose result depends on values, which hints do not have."""
        blank = [map_values(_blank, hint_of(part)) for part in (args, kwargs)]
        hint = target(*blank[0], **blank[1])
        value: Any = self.origin.meta.get("val") if self.origin is not None else None
        result = self.append(kind, target, args, kwargs, self._found(hint, value))
        reads = bool(free_unbacked_symbols(value))
        result.node.meta.update(static=False, evaluates=reads)
        if hasattr(value, "node"):
            result.node.meta.update(expr=self.expr(value), val=value)
        return result

    def _found(self, hint: Any, value: Any) -> Any:
        """`hint` with the sizes and numbers that the captured `value` has for the example inputs."""
        if isinstance(hint, list | tuple):
            values = value if isinstance(value, list | tuple) else [None] * len(hint)
            return [self._found(h, v) for h, v in zip(hint, values, strict=True)]
        if not isinstance(hint, mlx.core.array):
            return self.number(value) if hasattr(value, "node") else hint
        if not isinstance(value, torch.Tensor) or value.ndim != hint.ndim:
            return hint
        sizes = zip(value.shape, hint.shape, strict=True)
        shape = [self.number(v) if free_unbacked_symbols(v) else n for v, n in sizes]
        return mlx.core.zeros(shape, hint.dtype)

    def append(
        self, kind: str, target: Any, args: Any, kwargs: Any, hint: Any, **meta: Any
    ) -> Traced:
        """A new node, without running its target."""
        node = self.graph.create_node(
            kind, target, self.create_arg(tuple(args)), self.create_arg(dict(kwargs))
        )
        node.meta.update(hint=hint, origin=self.origin, **meta)
        if isinstance(meta.get("val"), torch.Tensor):
            self.describe(node, meta["val"])
        else:
            node.meta["static"] = all(
                n.meta.get("static") for n in node.all_input_nodes
            )
        return self.proxy(node)

    def describe(self, node: torch.fx.Node, value: torch.Tensor) -> None:
        """Remember the fake tensor that `node` stands for, and whether its sizes are fixed."""
        fixed = all(isinstance(self.fixed(size), int) for size in value.shape)
        node.meta.update(val=value, static=fixed)

    def fixed(self, size: Any) -> Any:
        """`size` as an int where torch.export has fixed it, else its expression."""
        if isinstance(size, int):
            return size
        expr = self.expr(size)
        return int(expr) if expr.is_number else expr


def _blank(hint: Any) -> Any:
    """An array of zeros like a hint, which is quick to evaluate."""
    is_array = isinstance(hint, mlx.core.array)
    return mlx.core.zeros(hint.shape, hint.dtype) if is_array else hint


def hint_of(value: Any) -> Any:
    """`value` with every traced value replaced by its hint."""
    return map_values(lambda v: v.hint if isinstance(v, Traced) else v, value)


class Traced(torch.fx.Proxy):
    """A value of the lowered graph while it is built: an array, a size or a list of arrays."""

    tracer: Recorder

    @property
    def hint(self) -> Any:
        """The lazy MLX array, int, or list of these, for the example inputs."""
        return self.node.meta["hint"]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes: an int where it is fixed, a traced size where it may vary."""
        value = self.node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return tuple(self._dim(axis) for axis in range(self.ndim))
        sizes = [self.tracer.fixed(size) for size in value.shape]
        return tuple(
            size if isinstance(size, int) else self._dim(axis, size)
            for axis, size in enumerate(sizes)
        )

    def _dim(self, axis: int, expr: Any = None) -> Any:
        if self.node.meta.get("static"):
            return self.hint.shape[axis]
        return self.tracer.append(
            "call_function",
            intrinsics.dim,
            (self, axis),
            {},
            self.hint.shape[axis],
            expr=expr,
        )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.hint.ndim

    @property
    def dtype(self) -> mlx.core.Dtype:
        """The MLX dtype."""
        return self.hint.dtype

    @property
    def T(self) -> Traced:
        """The transpose."""
        return mx.transpose(self)

    @property
    def at(self) -> _At:
        """MLX's accumulating index updates: `x.at[index].add(update)`."""
        return _At(self)

    def astype(self, dtype: mlx.core.Dtype) -> Traced:
        """This value cast to `dtype`; itself when it already has it."""
        if self.dtype == dtype:
            return self
        return self.tracer.create_proxy(
            "call_function", intrinsics.astype, (self, dtype), {}
        )

    def item(self) -> Traced:
        """The number that this array holds, which is evaluated at run time."""
        return self.tracer.create_proxy("call_function", intrinsics.item, (self,), {})

    def reshape(self, *shape: Any) -> Traced:
        """Like `mx.array.reshape`: sizes one by one or as one sequence."""
        sizes = (
            shape[0]
            if len(shape) == 1 and isinstance(shape[0], list | tuple)
            else shape
        )
        return mx.reshape(self, tuple(sizes))

    def transpose(self, *axes: Any) -> Traced:
        """Like `mx.array.transpose`: axes one by one or as one sequence."""
        order = (
            axes[0] if len(axes) == 1 and isinstance(axes[0], list | tuple) else axes
        )
        return mx.transpose(self, tuple(order)) if order else mx.transpose(self)

    def __getattr__(self, name: str) -> Any:
        function = getattr(mlx.core, name, None)
        if function is None or not hasattr(mlx.core.array, name):
            raise AttributeError(f"MLX arrays have no {name!r}")
        return lambda *args, **kwargs: getattr(mx, name)(self, *args, **kwargs)

    def __getitem__(self, index: Any) -> Traced:
        return self.tracer.create_proxy(
            "call_function", operator.getitem, (self, index), {}
        )

    def __iter__(self) -> Iterator[Traced]:  # type: ignore[override]
        if not isinstance(self.hint, list | tuple):
            raise TypeError("a traced array cannot be iterated over")
        return (self[i] for i in range(len(self.hint)))

    def __len__(self) -> int:
        return len(self.hint)

    def __bool__(self) -> bool:  # type: ignore[override]
        raise Refuse("its lowering branches on a traced value")

    def __hash__(self) -> int:
        return id(self)


def _compare(name: str) -> Callable[[Traced, Any], Any]:
    """Comparison of arrays is recorded; of sizes it is decided, or refused where it depends on the input."""
    operation = getattr(operator, name)

    def method(self: Traced, other: Any) -> Any:
        if not isinstance(self.hint, int):
            return self.tracer.create_proxy(
                "call_function", operation, (self, other), {}
            )
        if other is None:
            return operation is operator.ne
        return decide(operation, self, other)

    return method


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Traced, _name, _compare(_name))


def decide(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> bool:
    """Compare two sizes for every input that the capture allows."""

    def expr(value: Any) -> Any:
        found = value.node.meta.get("expr") if isinstance(value, Traced) else value
        if found is None:
            raise Refuse(
                "its lowering depends on a size that is only known at run time"
            )
        return sympy.sympify(found)

    left, right = expr(a), expr(b)
    found = holds(operation, left, right)
    if found is None:
        raise Refuse(
            f"its lowering depends on whether {operation.__name__}({left}, {right})"
        )
    return found


ARITHMETIC: dict[Any, Callable[..., Any]] = {
    operator.add: operator.add,
    operator.sub: operator.sub,
    operator.mul: operator.mul,
    operator.neg: operator.neg,
    operator.floordiv: FloorDiv,
}


def _expr(target: Any, args: tuple[Any, ...]) -> Any:
    """The expression of a size that is computed from sizes, None where it is not known."""
    known = [a.node.meta.get("expr") if isinstance(a, Traced) else a for a in args]
    if target not in ARITHMETIC or any(expr is None for expr in known):
        return None
    return ARITHMETIC[target](*map(sympy.sympify, known))


class _At:
    """`x.at[index]`, which has the methods add, multiply, maximum and minimum."""

    def __init__(self, x: Traced, index: Any = None):
        self._x, self._index = x, index

    def __getitem__(self, index: Any) -> _At:
        return _At(self._x, index)

    def __getattr__(self, name: str) -> Any:
        target = intrinsics.AT[name]
        return lambda update: self._x.tracer.create_proxy(
            "call_function", target, (self._x, self._index, update), {}
        )


class LayerBuilder:
    """An `mlx.nn` layer under construction: weights are assigned, then it is called."""

    _recorder: Recorder
    _layer: Layer
    _dtypes: dict[str, mlx.core.Dtype]

    def __init__(
        self, recorder: Recorder, cls: type, args: Any, kwargs: dict[str, Any]
    ):
        if any(isinstance(value, Traced) for value in (*args, *kwargs.values())):
            raise Decline("its arguments depend on the input's size")
        layer = Layer(cls, args, kwargs)
        self.__dict__.update(_recorder=recorder, _layer=layer, _dtypes={})

    def __setattr__(self, name: str, value: Traced | Weight) -> None:
        from torch2mlx.lower.weights import weight_of

        found = value if isinstance(value, Weight) else weight_of(value.node)
        self._layer.weights[name] = found
        if isinstance(value, Traced):
            self._dtypes[name] = value.dtype

    def __call__(self, *inputs: Traced) -> Traced:
        layer, recorder = self._layer, self._recorder
        path = recorder.place_layer(layer)
        module = layer.cls(*layer.args, **layer.kwargs)
        for name, dtype in self._dtypes.items():  # as they will be loaded
            setattr(module, name, getattr(module, name).astype(dtype))
        hint = module(*hint_of(inputs))
        return recorder.append("call_module", path, inputs, {}, hint, layer=layer)


class _Namespace:
    """A module whose functions are recorded while a recorder is active."""

    def __init__(self, module: Any):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._module, name)
        if inspect.ismodule(attribute):
            return _Namespace(attribute)
        if isinstance(attribute, type) and issubclass(attribute, mlx.nn.Module):
            return self._layer(attribute)
        if not callable(attribute) or isinstance(attribute, mlx.core.Dtype):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            if not _active:
                return attribute(*args, **kwargs)
            return _active[-1].create_proxy("call_function", attribute, args, kwargs)

        return call

    @staticmethod
    def _layer(cls: type) -> Callable[..., Any]:
        def construct(*args: Any, **kwargs: Any) -> Any:
            if not _active:
                return cls(*args, **kwargs)
            return LayerBuilder(_active[-1], cls, args, kwargs)

        return construct


class _Helpers(_Namespace):
    """The functions of templates/helpers, by name."""

    def __init__(self) -> None:
        super().__init__(None)

    def __getattr__(self, name: str) -> Any:
        if self.__dict__["_module"] is None:
            self._module = importlib.import_module("torch2mlx_templates.helpers")
        return super().__getattr__(name)


mx: Any = _Namespace(mlx.core)
nn: Any = _Namespace(mlx.nn)
helpers: Any = _Helpers()
