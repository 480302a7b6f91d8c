"""Compile one sample, run what comes out, and compare numbers and gradients with PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from torch.utils import _pytree as pytree

import torch2mlx
from tests.conformance.samples import Sample
from tests.lowering import to_mlx, to_numpy
from torch2mlx.emit.functions import described

# Absolute and relative, against the same operator of PyTorch in float32
TOLERANCE = 1e-5, 1e-4


@dataclass
class Outcome:
    """What became of a sample.

    Attributes:
        status: "right", "refused", "wrong", "crash", or "not captured" by torch.export.
        why: The message, unless it is right.
        gradient: "right", "wrong", "none" where MLX has none, or "" where none was compared.
        targets: ATen overload -> what its calls became.
        refused: The ATen overloads that are refused.
        compare_gradients: Fills in `gradient`; None where there is none to compare.
    """

    status: str
    why: str = ""
    gradient: str = ""
    targets: dict[str, Counter[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    compare_gradients: Callable[[], None] | None = None


def check(sample: Sample) -> Outcome:
    """Compile, run and compare one sample; its gradients only when the outcome is asked to."""
    with torch.no_grad():
        want = sample.module(*pytree.tree_map(torch.clone, sample.args))
    try:
        program = torch2mlx.compile(sample.module, sample.args, io_layout="torch")
    except torch2mlx.UnsupportedError as error:
        refused = [entry.op for entry in error.entries]
        return Outcome("refused", _line(error), refused=refused)
    except torch2mlx.CaptureError as error:
        return Outcome("not captured", _line(error))
    except Exception as error:
        return Outcome("crash", _line(error))
    targets = targets_of(program)
    inputs = pytree.tree_map(to_mlx, sample.args)
    try:
        model = program.load()
        got = model(*inputs)
        mx.eval([x for x in pytree.tree_leaves(got) if isinstance(x, mx.array)])
    except Exception as error:
        return Outcome("crash", _line(error), targets=targets)
    why = difference(want, got, sample.values)
    if why and not _is_as_near(sample, want, got):
        return Outcome("wrong", why, targets=targets)
    outcome = Outcome("right", targets=targets)
    if sample.differentiable:

        def compare_gradients() -> None:
            outcome.gradient = gradient(sample, model, inputs)

        outcome.compare_gradients = compare_gradients
    return outcome


def targets_of(program: torch2mlx.Program) -> dict[str, Counter[str]]:
    """ATen overload -> the MLX functions, layers and helpers that stand for it."""
    found: dict[str, Counter[str]] = {}
    for node in program.lowered.graph.nodes:
        origin = node.meta.get("origin")
        if origin is None or node.op not in ("call_function", "call_module"):
            continue
        name = (
            f"nn.{node.meta['layer'].cls.__name__}"
            if node.op == "call_module"
            else described(node.target)
        )
        found.setdefault(str(origin.target), Counter())[name] += 1
    return found


def difference(want: Any, got: Any, values: bool = True) -> str:
    """Why MLX's outputs are not PyTorch's, "" where they are.

    Args:
        want: PyTorch's outputs.
        got: MLX's.
        values: Whether numbers are compared, or dtypes and shapes alone.
    """
    expected, actual = _leaves(want), _leaves(got)
    if len(expected) != len(actual):
        return f"{len(actual)} outputs for {len(expected)}"
    for i, (a, b) in enumerate(zip(expected, actual, strict=True)):
        why = _leaf_difference(a, b, values)
        if why:
            return f"output {i}: {why}"
    return ""


def _is_as_near(sample: Sample, want: Any, got: Any) -> bool:
    """Whether MLX's numbers are as near to those in double precision as PyTorch's are."""
    if difference(want, got, values=False):
        return False
    try:
        exact = sample.module(*pytree.tree_map(_double, sample.args))
    except RuntimeError:
        return False
    for e, a, b in zip(*map(_leaves, (exact, want, got)), strict=True):
        if not isinstance(e, torch.Tensor) or e.dtype != torch.float64:
            return False
        errors = [np.abs(to_numpy(x) - to_numpy(e)).max() for x in (a, b)]
        if not errors[1] <= errors[0]:
            return False
    return True


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _leaf_difference(want: Any, got: Any, values: bool) -> str:
    if not isinstance(want, torch.Tensor):
        got = got.item() if isinstance(got, mx.array) else got
        return (
            "" if got == want or (got != got and want != want) else f"{got} for {want}"
        )
    if not isinstance(got, mx.array):
        return f"{type(got).__name__} for a tensor"
    a, b = to_numpy(want.to_dense()), to_numpy(got)
    kinds = [{"u": "i"}.get(x.dtype.kind, x.dtype.kind) for x in (a, b)]
    if kinds[0] != kinds[1]:
        return f"dtype {b.dtype} for {a.dtype}"
    if a.shape != b.shape:
        return f"shape {b.shape} for {a.shape}"
    if not values:
        return ""
    if kinds[0] in "bi":
        return "" if np.array_equal(a, b) else "other integers"
    absolute, relative = TOLERANCE
    same = np.isclose(b, a, rtol=relative, atol=absolute, equal_nan=True)
    if same.all():
        return ""
    with np.errstate(all="ignore"):
        return f"{np.count_nonzero(~same)} of {a.size} differ, most by {np.nanmax(np.abs(a - b)):.3g}"


def gradient(sample: Sample, model: Callable[..., Any], inputs: Any) -> str:
    """Compare the gradients of a random projection of the outputs: see `Outcome`."""
    leaves, spec = pytree.tree_flatten(sample.args)
    floats = [i for i, leaf in enumerate(leaves) if leaf.is_floating_point()]

    def outputs_of(sources: list[int]) -> tuple[list[torch.Tensor], list[Any]]:
        given = [
            leaf.detach().clone().requires_grad_(i in sources)
            for i, leaf in enumerate(leaves)
        ]
        return given, _leaves(sample.module(*pytree.tree_unflatten(given, spec)))

    try:
        variables, outputs = outputs_of(floats)
    except RuntimeError:
        # Not differentiable by the target of a loss, by statistics, ...
        floats = floats[:1]
        variables, outputs = outputs_of(floats)
    used = [
        i
        for i, out in enumerate(outputs)
        if isinstance(out, torch.Tensor) and out.requires_grad and out.numel()
    ]
    used = [i for i in used if outputs[i].is_floating_point()]
    if not floats or not used:
        return ""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(outputs[i].shape).astype(np.float32) for i in used]
    terms = [outputs[i] * torch.tensor(w) for i, w in zip(used, weights, strict=True)]
    total = sum((term.sum() for term in terms), torch.zeros(()))
    sources = [variables[i] for i in floats]
    try:
        want = torch.autograd.grad(total, sources, allow_unused=True)
    except RuntimeError:  # PyTorch has none either
        return ""
    arrays = pytree.tree_leaves(inputs)

    def projection(*values: mx.array) -> mx.array:
        given = list(arrays)
        for i, value in zip(floats, values, strict=True):
            given[i] = value
        results = _leaves(model(*pytree.tree_unflatten(given, spec)))
        terms = [
            (results[i] * mx.array(w)).sum() for i, w in zip(used, weights, strict=True)
        ]
        return mx.sum(mx.stack(terms))

    try:
        got = mx.grad(projection, argnums=tuple(range(len(floats))))(
            *(arrays[i] for i in floats)
        )
        got = got if isinstance(got, tuple | list) else (got,)
        mx.eval(got)
    except Exception:  # MLX says so where it has no gradient
        return "none"
    for i, a, b in zip(floats, want, got, strict=True):
        if a is None:  # a constant to PyTorch, such as the target of a loss
            continue
        expected = to_numpy(torch.zeros_like(leaves[i]) if a._is_zerotensor() else a)
        actual = to_numpy(b)
        if actual.shape != expected.shape or not np.allclose(
            actual, expected, rtol=1e-3, atol=1e-4, equal_nan=True
        ):
            return "wrong"
    return "right"


def _line(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
