"""Example inputs for a model that comes without: told by its first layers, checked by running it.

The model is traced symbolically; from each input the walk goes to the first layer that consumes it.
Where tracing fails, the model is run on probes and hooks tell which layer is reached first. A guess
counts only if the model runs on it, on fake tensors: nothing is computed and no memory is used.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from torch2mlx.capture.valueless import device_of
from torch2mlx.errors import InputError
from torch2mlx.silence import silent
from torch2mlx.source import inputs
from torch2mlx.source.dry_run import NO_VALUES, dry_run, fake_mode
from torch2mlx.source.first_layers import (
    BATCH,
    LENGTH,
    Need,
    Shape,
    of_function,
    of_module,
)
from torch2mlx.source.user_code import blame

_TRIES = 64
_PROBES: tuple[tuple[Shape, torch.dtype], ...] = (
    ((BATCH, 3, 64, 64), torch.float32),
    ((BATCH, LENGTH), torch.int64),
    ((BATCH, LENGTH, 8), torch.float32),
    ((BATCH, 8), torch.float32),
    ((BATCH, 3, 16, 32, 32), torch.float32),
)
# What reads an input's sizes passes no values on
_NO_VALUES = {"size", "dim", "ndimension", "numel", "getattr", "len", "stride"}


def infer(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """Example inputs for `model`, batch 2.

    Args:
        model: In evaluation mode.

    Returns:
        Positional arguments, keyword arguments, and one line that says what was guessed and why.

    Raises:
        InputError: The inputs cannot be inferred.
    """
    names = _required(model)
    needs = _needs(model, names)
    missing = [name for name in names if name not in needs]
    if missing:
        raise _cannot(model, missing[0], f"no layer tells what {missing[0]!r} is")
    ordered = [needs[name] for name in names]
    shapes = _that_run(model, names, ordered)
    generator = torch.Generator().manual_seed(0)
    tensors = [
        inputs.values(name, shape, need.dtype, need.limit, generator)
        for name, shape, need in zip(names, shapes, ordered, strict=True)
    ]
    args, kwargs = _arguments(model, names, tensors)
    lines = [
        f"{inputs.describe(name, shape, need.dtype)}, as {need.source} takes it"
        for name, shape, need in zip(names, shapes, ordered, strict=True)
    ]
    return args, kwargs, "; ".join(lines)


def integer_limits(model: nn.Module) -> dict[str, int]:
    """Below which number the integers of each input must be.

    Returns:
        Argument of `forward` -> bound; "" -> the bound that is safe for all others.
    """
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    limits = {"": min(tables, default=2)}
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(vocabulary, int):
        return limits | {"input_ids": vocabulary, "decoder_input_ids": vocabulary}
    found = _by_tracing(model, list(inspect.signature(model.forward).parameters))
    return limits | {
        name: need.limit for name, need in (found or {}).items() if need.limit
    }


def _required(model: nn.Module) -> list[str]:
    names = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            names.append(parameter.name)
    if not names:
        raise _cannot(model, "x", "its forward() names no required argument")
    return names


def _needs(model: nn.Module, names: list[str]) -> dict[str, Need]:
    itself = [of_module(model, i, "the model") for i in range(len(names))]
    if any(itself):
        pairs = zip(names, itself, strict=True)
        return {name: need for name, need in pairs if need is not None}
    found = _by_tracing(model, names)
    if found is None:
        return _by_probing(model, names)
    return {**_by_probing(model, names), **found} if len(found) < len(names) else found


def _by_tracing(model: nn.Module, names: list[str]) -> dict[str, Need] | None:
    """Argument -> what it needs, for those that tracing tells; None where tracing fails."""
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        with silent():
            traced = fx.Tracer().trace(model, concrete_args=defaults)
    except Exception:
        # Whatever the author's code does with a value that has no content
        return None
    found: dict[str, Need] = {}
    reached: dict[str, list[fx.Node]] = {}
    for node in traced.nodes:
        if node.op == "placeholder" and node.target in names:
            need, reached[node.target] = _walk(model, node)
            if need is not None:
                found[node.target] = need
    for name in [name for name in reached if name not in found]:
        partner = _partner(name, reached, found)
        if partner is not None:
            found[name] = found[partner]
    return found


def _walk(model: nn.Module, start: fx.Node) -> tuple[Need | None, list[fx.Node]]:
    """The first layer in the order of the graph that takes what comes from `start`."""
    carriers = {start: None}
    for node in start.graph.nodes:
        arguments = [
            i
            for i, a in enumerate(node.args)
            if isinstance(a, fx.Node) and a in carriers
        ]
        if not arguments:
            continue
        need = _need(model, node, arguments[0])
        if need is not None:
            return need, list(carriers)
        if _name(node) not in _NO_VALUES:
            carriers[node] = None
    return None, list(carriers)


def _need(model: nn.Module, node: fx.Node, position: int) -> Need | None:
    if node.op == "call_module":
        path = str(node.target)
        return of_module(model.get_submodule(path), position, path)
    if node.op != "call_function":
        return None
    others = [n for n in node.all_input_nodes if n.op == "get_attr"]
    if position != 0 or not others:
        return None
    weight = _attribute(model, str(others[0].target))
    is_tensor = isinstance(weight, torch.Tensor)
    return (
        of_function(node.target, weight, str(others[0].target)) if is_tensor else None
    )


def _attribute(model: nn.Module, path: str) -> Any:
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _partner(
    name: str, reached: dict[str, list[fx.Node]], found: dict[str, Need]
) -> str | None:
    """An input of known shape that an operator combines with the input `name`."""
    for other in found:
        theirs = set(reached[other])
        if any(theirs & set(node.all_input_nodes) for node in reached[name]):
            return other
    return None


def _by_probing(model: nn.Module, names: list[str]) -> dict[str, Need]:
    """Run the model on probes; the first layer that gets a probe tells what it should have been."""
    found: dict[str, Need] = {}
    paths = {module: path for path, module in model.named_modules()}

    for shape, dtype in _PROBES:
        mode = fake_mode()
        with mode, device_of(model):
            probes = {name: torch.zeros(shape, dtype=dtype) for name in names}
        seen: dict[str, Need] = {}

        def hook(
            module: nn.Module, arguments: Any, probes: Any = probes, seen: Any = seen
        ) -> None:
            for position, value in enumerate(arguments):
                need = of_module(module, position, paths[module])
                owner = [name for name, probe in probes.items() if value is probe]
                if len(names) == 1 and not seen:
                    owner = names
                if need is not None and owner:
                    seen.setdefault(owner[0], need)

        handles = [
            module.register_forward_pre_hook(hook)
            for module in paths
            if module is not model
        ]
        try:
            dry_run(model, *_arguments(model, names, list(probes.values())), mode)
        finally:
            for handle in handles:
                handle.remove()
        found = {**seen, **found}
        if len(found) == len(names):
            break
    return found


def _that_run(model: nn.Module, names: list[str], needs: list[Need]) -> Sequence[Shape]:
    """The first shapes on which the model runs."""
    first: str | None = None
    choices = itertools.product(*(need.shapes for need in needs))
    # Inputs of one kind have one shape before they have different ones
    ranked = sorted(
        itertools.islice(choices, 4096),
        key=lambda shapes: sum(
            need.shapes.index(s) for need, s in zip(needs, shapes, strict=True)
        ),
    )
    for shapes in ranked[
        : max(_TRIES, math.prod(len(need.shapes) for need in needs[:1]))
    ]:
        mode = fake_mode()
        with mode, device_of(model):
            probes = [
                torch.zeros(shape, dtype=need.dtype)
                for shape, need in zip(shapes, needs, strict=True)
            ]
        failure = dry_run(model, *_arguments(model, names, probes), mode)
        # What asks for a value got that far with these shapes
        if failure is None or isinstance(failure, NO_VALUES):
            return shapes
        first = first or blame(failure)
    guess = ", ".join(
        inputs.describe(name, need.shapes[0], need.dtype)
        for name, need in zip(names, needs, strict=True)
    )
    raise _cannot(model, names[0], f"with {guess} forward() fails: {first}")


def _arguments(
    model: nn.Module, names: list[str], tensors: Sequence[torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    parameters = inspect.signature(model.forward).parameters
    by_name = dict(zip(names, tensors, strict=True))
    keyword = {n for n in names if parameters[n].kind is inspect.Parameter.KEYWORD_ONLY}
    args = tuple(by_name[name] for name in names if name not in keyword)
    return args, {name: by_name[name] for name in names if name in keyword}


def _cannot(model: nn.Module, name: str, why: str) -> InputError:
    return InputError(
        f"cannot infer the inputs of {type(model).__name__}: {why}; "
        f"give them, for example --input {name}=2,3,224,224"
    )
