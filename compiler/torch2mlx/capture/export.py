"""`torch.export` with every input size dynamic where the model allows it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
import torch.fx
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.fx.traceback import preserve_node_meta
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_map

from torch2mlx.capture.asked import Asked, recording_questions
from torch2mlx.capture.assignments import add_assignments, recording_assignments
from torch2mlx.capture.branches import place_branches
from torch2mlx.capture.captured import Captured, Input
from torch2mlx.capture.causal import masks_as_given
from torch2mlx.capture.conditions import note_conditions
from torch2mlx.capture.equal_calls import EqualCalls
from torch2mlx.capture.evaluation import evaluating
from torch2mlx.capture.failure import diagnose, first_line
from torch2mlx.capture.fixed import note_fixed
from torch2mlx.capture.implied import unify_implied
from torch2mlx.capture.lengths import lengths_as_sizes
from torch2mlx.capture.limit import TookTooLong, arithmetic_limited
from torch2mlx.capture.ones import note_ones
from torch2mlx.capture.opaque import opaque as opaque_modules
from torch2mlx.capture.provenance import classes_in, recording_calls
from torch2mlx.capture.recurrent import free_lengths
from torch2mlx.capture.signature import explicit_shapes, explicit_signature
from torch2mlx.capture.sizes import note_minima, symbols
from torch2mlx.capture.solving import solved_where_possible
from torch2mlx.capture.valueless import standing_in
from torch2mlx.capture.values import read_values
from torch2mlx.capture.vmaps import expand_vmaps
from torch2mlx.capture.widen import widened
from torch2mlx.errors import CaptureError, InputError
from torch2mlx.silence import silent

ARITHMETIC_SECONDS = 15.0


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Any = "auto",
    program: ExportedProgram | None = None,
    opaque: Collection[type] = (),
) -> Captured:
    """Capture `model`, in evaluation mode, as a graph of ATen operators.

    Args:
        model: The module; its training flags are restored afterwards.
        args: Example positional arguments of `forward`.
        kwargs: Example keyword arguments.
        dynamic: "auto" makes every input size dynamic that the model allows to vary, False makes all
            sizes fixed; anything else is passed to `torch.export.export` as `dynamic_shapes`.
        program: Capture this exported program instead of exporting `model`.
        opaque: Module classes whose calls become one node each, see `capture.opaque`.

    Raises:
        CaptureError: torch.export cannot capture the model.
        InputError: The example inputs do not fit `forward`.
    """
    example = tuple(args), dict(kwargs or {})
    notes: list[str] = []
    asked = Asked()
    if program is not None:
        return _captured(model, program, *example, notes, asked)
    given, dynamic = example, explicit_shapes(model, dynamic)
    with (
        standing_in(model) as valueless,
        explicit_signature(model, *example),
        opaque_modules(model, opaque) as calls,
    ):
        if dynamic == "auto":
            example = widened(model, *example, notes)
        program = _export(model, *example, dynamic, notes, asked)
        if _is_wider(program, given):
            example, notes = given, ["the batch size is fixed at 1"]
            program = _export(model, *example, dynamic, notes, asked)
        program.state_dict.update(valueless)
        captured = _captured(model, program, *example, notes, asked)
    captured.module_calls = calls
    return captured


def _is_wider(program: ExportedProgram, example: Any) -> bool:
    """Whether an input has a fixed size that is not the example's: that of a wider batch."""
    nodes = {node.name: node for node in program.graph_module.graph.nodes}
    names = program.graph_signature.user_inputs
    return any(
        not free_symbols(size) and size != leaf.shape[axis]
        for name, leaf in zip(names, tree_leaves(example), strict=True)
        if isinstance(name, str) and isinstance(leaf, torch.Tensor)
        for axis, size in enumerate(nodes[name].meta["val"].shape)
    )


def _export(
    model: torch.nn.Module,
    args: Any,
    kwargs: Any,
    dynamic: Any,
    notes: list[str],
    asked: Asked,
) -> ExportedProgram:
    """Export with as many sizes free as the model allows."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"the inputs do not fit forward(): {error}") from None
    attempts: list[tuple[str, Any]] = [("", dynamic or None)]
    if dynamic == "auto":
        attempts = _attempts(dict(bound.arguments))
    failure: Exception | None = None
    why = ""
    for fixed, shapes in attempts:
        is_last = shapes is attempts[-1][1]
        asked.clear()
        limit = math.inf if is_last else ARITHMETIC_SECONDS
        try:
            with arithmetic_limited(limit), recording_questions(asked):
                program = _export_once(model, args, kwargs, shapes, notes)
        except TookTooLong:
            why = why or "the arithmetic with sizes takes too long"
        except Exception as error:
            failure = error
            found = f"{type(error).__name__}: {first_line(error)}"
            why = why or f"torch.export fails ({found})"
        else:
            if why:
                notes.append(f"{fixed} fixed: with more of them free, {why}")
            return program
    assert failure is not None
    raise CaptureError(str(diagnose(failure))) from failure


def _attempts(arguments: dict[str, Any]) -> list[tuple[str, Any]]:
    """(Which sizes are fixed, the dynamic shapes), the freest first."""
    length = _length(arguments)
    ways: dict[str, Callable[[int, int], bool]] = {
        "no size is": lambda axis, size: True,
        "all sizes but the batch and the length are": (
            lambda axis, size: axis == 0 or size == length
        ),
        "all sizes but the batch are": lambda axis, size: axis == 0,
        "all sizes are": lambda axis, size: False,
    }
    attempts: list[tuple[str, Any]] = []
    for fixed, is_free in ways.items():
        shapes = tree_map(partial(_free, is_free), arguments)
        if attempts and attempts[-1][1] == shapes:
            attempts.pop()
        attempts.append((fixed, shapes))
    return attempts


def _length(arguments: dict[str, Any]) -> int | None:
    """The length of the sequences: the second size of the first input that can be some."""
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, torch.Tensor) and leaf.ndim in (2, 3):
            return leaf.shape[1]
    return None


def _free(is_free: Callable[[int, int], bool], leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return None
    sizes = enumerate(leaf.shape)
    return {axis: Dim.AUTO for axis, size in sizes if size > 1 and is_free(axis, size)}


def _export_once(
    model: torch.nn.Module, args: Any, kwargs: Any, shapes: Any, notes: list[str]
) -> ExportedProgram:
    with (
        silent(),
        evaluating(model, notes),
        EqualCalls(),
        recording_calls(model),
        recording_assignments(model),
        preserve_node_meta(),  # of the graphs of branches
        free_lengths(),
        lengths_as_sizes(model),
        masks_as_given(),
        solved_where_possible(),
    ):
        return torch.export.export(
            model, args, kwargs, dynamic_shapes=shapes, strict=False
        )


def _captured(
    model: torch.nn.Module,
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    notes: list[str],
    asked: Asked,
) -> Captured:
    expand_vmaps(program.graph_module)
    graph, signature = program.graph_module.graph, program.graph_signature
    weights: dict[str, str] = {}
    names: list[str] = []
    for spec in signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            names.append(spec.arg.name)
        elif spec.target is not None:
            weights[spec.arg.name] = spec.target
    tensors = {**program.state_dict, **program.constants}
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    inputs, arguments = _inputs(model, program, names, args, kwargs)
    unified, hints = symbols(graph, inputs)
    hints |= read_values(model, program, args, kwargs)
    stored = {key for key in tensors if key in program.state_dict}
    modules = dict(model.named_modules())
    classes: dict[str, type] = {path: type(m) for path, m in modules.items()}
    if isinstance(model, torch.fx.GraphModule):
        # From a file: its modules have lost their classes.
        modules, classes = {}, {"": type(model)} | classes_in(graph)
    out_spec = program.call_spec.out_spec
    assert out_spec is not None
    captured = Captured(
        graph=graph,
        model_class=f"{classes[''].__module__}.{classes[''].__qualname__}",
        classes=classes,
        modules=modules,
        weights=weights,
        tensors=tensors,
        aliases=_aliases(tensors, classes),
        trainable=set(signature.parameters),
        persistent=stored - set(signature.non_persistent_buffers),
        inputs=inputs,
        arguments=arguments,
        example=(args, kwargs),
        out_spec=out_spec,
        hints=hints,
        unified=unified,
        outputs=list(signature.output_specs),
        notes=notes,
    )
    add_assignments(graph, weights)
    place_branches(program.graph_module, model)
    unify_implied(captured)
    note_minima(captured, program.graph_module)
    note_conditions(captured)
    note_ones(captured, program.graph_module, model, asked)
    note_fixed(captured, asked)
    return captured


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
            identity = (
                tensor.data_ptr(),
                tuple(tensor.shape),
                tensor.stride(),
                tensor.dtype,
            )
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
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p.name for p in parameters if p.kind in kinds]
    leaves, _ = tree_flatten_with_path((args, kwargs))
    inputs: list[Input] = []
    arguments: dict[str, Any] = {}
    for (path, leaf), name in zip(leaves, names, strict=True):
        steps = [_step(key) for key in path]
        if steps[0] == 1:
            argument, rest = str(steps[1]), steps[2:]
        else:
            argument, rest = positional[steps[1]], steps[2:]
        if isinstance(leaf, torch.Tensor):
            arguments.setdefault(argument, None)
            inputs.append(Input(name, argument, tuple(rest), leaf))
        elif not rest:
            arguments[argument] = leaf
    return inputs, arguments


def _step(key: Any) -> Any:
    """What a step of a path into nested arguments is: an index, a key or a name."""
    names = ("idx", "key", "name")
    return next(getattr(key, name) for name in names if hasattr(key, name))
