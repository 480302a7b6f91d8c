"""`torch.export` with every input size dynamic where the model allows it."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
import torch.fx
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from torch2mlx.capture.provenance import classes_in, recording_calls
from torch2mlx.errors import CaptureError, InputError
from torch2mlx.ir.decision import Decision


@dataclass(frozen=True)
class Input:
    """One array input of the model.

    Attributes:
        name: The placeholder's name in the captured graph.
        argument: The parameter of `forward` that it belongs to.
        path: How to get from that argument to the array: indices and keys.
        example: The example tensor.
    """

    name: str
    argument: str
    path: tuple[Any, ...]
    example: torch.Tensor


@dataclass
class Captured:
    """A model as one graph of ATen operators.

    Attributes:
        graph: The ATen graph; its placeholders are weights and inputs.
        model_class: Qualified class name of the model.
        classes: Module path -> class, for all modules.
        modules: Module path -> module, empty for a program that came without its modules.
        weights: Placeholder name -> state dict key, for parameters, buffers and constants.
        tensors: State dict key -> tensor.
        aliases: State dict key -> the key that the same tensor has first.
        trainable: State dict keys of parameters.
        persistent: State dict keys that a checkpoint holds.
        inputs: The array inputs in order.
        arguments: Parameters of `forward` in call order, with the constant of those that hold no array.
        example: The example arguments and keyword arguments.
        out_spec: Pytree of the outputs.
        hints: Symbol -> size for the example inputs.
        unified: Symbol -> the symbol that it is known to equal.
        mutated: Buffers that forward writes to: output index -> state dict key.
        bounds: Symbol -> the largest value for which the graph is right.
        notes: What the user should know: sizes that are fixed, and why.
        decisions: What the passes decided, for `--explain`.
    """

    graph: torch.fx.Graph
    model_class: str
    classes: dict[str, type]
    modules: dict[str, torch.nn.Module]
    weights: dict[str, str]
    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    trainable: set[str]
    persistent: set[str]
    inputs: list[Input]
    arguments: dict[str, Any]
    example: tuple[tuple[Any, ...], dict[str, Any]]
    out_spec: TreeSpec
    hints: dict[sympy.Symbol, int]
    unified: dict[sympy.Symbol, sympy.Symbol]
    outputs: list[Any] = field(default_factory=list)
    bounds: dict[sympy.Symbol, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def expr(self, size: Any) -> sympy.Expr:
        """A size as an expression over the symbols of the inputs."""
        found = size.node.expr if hasattr(size, "node") else size
        return sympy.sympify(found).subs(self.unified)

    def size(self, size: Any) -> int:
        """A size for the example inputs."""
        return int(self.expr(size).subs(self.hints))


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Any = "auto",
    program: ExportedProgram | None = None,
) -> Captured:
    """Capture `model`, in evaluation mode, as a graph of ATen operators.

    Args:
        model: The module; its training flags are restored afterwards.
        args: Example positional arguments of `forward`.
        kwargs: Example keyword arguments.
        dynamic: "auto" makes every input size dynamic that the model allows to vary, False makes all
            sizes fixed; anything else is passed to `torch.export.export` as `dynamic_shapes`.
        program: Capture this exported program instead of exporting `model`.

    Raises:
        CaptureError: torch.export cannot capture the model.
        InputError: The example inputs do not fit `forward`.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    notes: list[str] = []
    if program is None:
        args, kwargs = _widened(model, args, kwargs, dynamic, notes)
        program = _export(model, args, kwargs, dynamic, notes)
    return _captured(model, program, args, kwargs, notes)


def _widened(
    model: torch.nn.Module, args: Any, kwargs: Any, dynamic: Any, notes: list[str]
) -> Any:
    """A batch of one becomes a batch of two, since torch.export fixes sizes of 1."""
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim]
    if dynamic != "auto" or not tensors or any(t.shape[0] != 1 for t in tensors):
        return args, kwargs
    wide = [
        torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf
        for leaf in leaves
    ]
    wide_args, wide_kwargs = tree_unflatten(wide, spec)
    training = [m for m in model.modules() if m.training]
    try:
        model.eval()
        with torch.no_grad():
            model(*wide_args, **wide_kwargs)
    except Exception:
        notes.append("the batch size is fixed at 1: the model does not run with 2")
        return args, kwargs
    finally:
        for module in training:
            module.training = True
    return wide_args, wide_kwargs


def _export(
    model: torch.nn.Module, args: Any, kwargs: Any, dynamic: Any, notes: list[str]
) -> ExportedProgram:
    """Export with as many sizes dynamic as the model allows: all, the batch only, none."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"the inputs do not fit forward(): {error}") from None
    attempts = [dynamic if dynamic not in (False, None, "auto") else None]
    if dynamic == "auto":
        arguments = dict(bound.arguments)
        free = (_all_dynamic, _batch_dynamic, None)
        attempts = [_shapes(model, arguments, f) if f else None for f in free]
    failure: Exception | None = None
    for shapes in attempts:
        try:
            program = _export_once(model, args, kwargs, shapes)
        except Exception as error:
            failure = failure or error
            continue
        if failure is not None:
            fixed = "all sizes are" if shapes is None else "all sizes but the batch are"
            why = f"{type(failure).__name__}: {_first_line(failure)}"
            notes.append(f"{fixed} fixed, since torch.export failed with more of them free ({why})")
        return program
    assert failure is not None
    raise CaptureError(_explain(failure)) from failure


def _export_once(
    model: torch.nn.Module, args: Any, kwargs: Any, shapes: Any
) -> ExportedProgram:
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            _quiet_solver(),
            recording_calls(model),
        ):
            warnings.simplefilter("ignore")  # they are about running the model in PyTorch
            return torch.export.export(
                model, args, kwargs, dynamic_shapes=shapes, strict=False
            )
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _quiet_solver() -> Iterator[None]:
    """Keep from the terminal what torch.export logs of attempts that are then repeated otherwise."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _batch_dynamic(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return None
    return {0: Dim.AUTO} if leaf.ndim and leaf.shape[0] > 1 else {}


def _shapes(model: torch.nn.Module, arguments: dict[str, Any], free: Any) -> dict[str, Any]:
    return _forward_order(model, tree_map(free, arguments))


def _all_dynamic(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return None
    return {axis: Dim.AUTO for axis, size in enumerate(leaf.shape) if size > 1}


def _forward_order(model: torch.nn.Module, shapes: dict[str, Any]) -> dict[str, Any]:
    """`**kwargs` of forward come flattened, as torch.export wants them."""
    parameters = inspect.signature(model.forward).parameters
    flat: dict[str, Any] = {}
    for name, value in shapes.items():
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _explain(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    user = [line for line in lines if line.startswith("File ")]
    where = f" ({user[-1]})" if user else ""
    kind = type(error).__name__
    return f"torch.export cannot capture the model: {kind}: {_first_line(error)}{where}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def _captured(
    model: torch.nn.Module,
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    notes: list[str],
) -> Captured:
    graph = program.graph_module.graph
    weights: dict[str, str] = {}
    names: list[str] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            names.append(spec.arg.name)
        elif spec.target is not None:
            weights[spec.arg.name] = spec.target
    tensors = {**program.state_dict, **program.constants}
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    inputs, arguments = _inputs(model, program, names, args, kwargs)
    unified, hints = _symbols(graph, inputs)
    signature = program.graph_signature
    persistent = {k for k in tensors if k in program.state_dict} - set(
        signature.non_persistent_buffers
    )
    modules, classes = dict(model.named_modules()), {p: type(m) for p, m in model.named_modules()}
    if isinstance(model, torch.fx.GraphModule):  # from a file: its modules have lost their classes
        modules, classes = {}, {"": type(model)} | classes_in(graph)
    return Captured(
        graph=graph,
        model_class=f"{classes[''].__module__}.{classes[''].__qualname__}",
        classes=classes,
        modules=modules,
        weights=weights,
        tensors=tensors,
        aliases=_aliases(tensors, classes),
        trainable=set(signature.parameters),
        persistent=persistent,
        inputs=inputs,
        arguments=arguments,
        example=(args, kwargs),
        out_spec=program.call_spec.out_spec,
        hints=hints,
        unified=unified,
        outputs=list(signature.output_specs),
        notes=notes,
    )


def _aliases(
    tensors: dict[str, torch.Tensor], classes: dict[str, type]
) -> dict[str, str]:
    """Tied weights: each other name of a tensor -> the name that keeps it.

    That is the embedding's, where one shares it with a linear layer, else the first.
    """
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}

    def is_linear(key: str) -> bool:
        owner = classes.get(key.rpartition(".")[0], torch.nn.Module)
        return not issubclass(owner, torch.nn.Embedding)

    for key in sorted(tensors, key=is_linear):
        tensor = tensors[key]
        if tensor.device.type == "meta" or tensor.numel() == 0:
            identity: Any = id(tensor)
        else:
            identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        owner = first.setdefault(identity, key)
        if owner != key:
            aliases[key] = owner
    return aliases


def _inputs(
    model: torch.nn.Module,
    program: ExportedProgram,
    names: list[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[list[Input], dict[str, Any]]:
    """The array inputs, and forward's arguments in order with the constants among them."""
    from torch.utils._pytree import tree_flatten_with_path

    signature = inspect.signature(model.forward)
    positional = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = [p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL]
    leaves, _ = tree_flatten_with_path((args, kwargs))
    inputs: list[Input] = []
    arguments: dict[str, Any] = {}
    for (path, leaf), name in zip(leaves, names, strict=True):
        steps = [getattr(key, "idx", getattr(key, "key", getattr(key, "name", None))) for key in path]
        if steps[0] == 1:
            argument, rest = str(steps[1]), steps[2:]
        elif steps[1] < len(positional):
            argument, rest = positional[steps[1]], steps[2:]
        else:
            argument, rest = variadic[0], [steps[1] - len(positional), *steps[2:]]
        if isinstance(leaf, torch.Tensor):
            arguments.setdefault(argument, None)
            inputs.append(Input(name, argument, tuple(rest), leaf))
        elif not rest:
            arguments[argument] = leaf
    return inputs, arguments


def _symbols(
    graph: torch.fx.Graph, inputs: list[Input]
) -> tuple[dict[sympy.Symbol, sympy.Symbol], dict[sympy.Symbol, int]]:
    """Example sizes of the symbols, and which batch symbols are one.

    torch.export gives each input its own batch symbol where the model never relates them (an attention
    mask that is indexed by rows of another input, for instance). Token ids and masks share one batch, so
    integer inputs with the same example batch share the symbol.
    """
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    hints: dict[sympy.Symbol, int] = {}
    unified: dict[sympy.Symbol, sympy.Symbol] = {}
    batch: dict[int, sympy.Symbol] = {}
    for item in inputs:
        value = placeholders[item.name].meta["val"]
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                continue
            expr = size.node.expr
            if not isinstance(expr, sympy.Symbol):
                continue
            hints.setdefault(expr, item.example.shape[axis])
            if axis == 0 and not item.example.is_floating_point():
                owner = batch.setdefault(item.example.shape[0], expr)
                if owner != expr:
                    unified[expr] = owner
    return unified, hints
