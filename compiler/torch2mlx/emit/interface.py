"""The model's interface: parameters of its `__call__`, what it returns, and how both are described."""

from __future__ import annotations

import ast
import collections
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch.fx
import torch.return_types
from torch.utils._pytree import TreeSpec

from torch2mlx.capture import Captured, Input
from torch2mlx.capture.enforced import enforced_axes
from torch2mlx.emit import naming, syntax
from torch2mlx.emit.checks import Checked, check_bounds, check_conditions, check_fixed
from torch2mlx.emit.sizes import axis_names
from torch2mlx.errors import CaptureError
from torch2mlx.outline.operands import Dim, Segment

LETTERS = "BTLNMKPQRSUVWXYZ"
SEQUENCES = {
    tuple,
    list,
    collections.namedtuple,
    torch.Size,
    *(kind for kind in vars(torch.return_types).values() if isinstance(kind, type)),
}


@dataclass
class Interface:
    """How the generated model is called.

    Attributes:
        parameters: Parameter names of `__call__`, in order.
        annotations: Their types.
        names: For each input value, its parameter; "" where it is a part of one.
        reads: Input values that are parts of a parameter -> how they are read.
        returns: Type of the result.
        inputs: One line for each array input.
        outputs: One line for each array output.
        checks: Statements that refuse other sizes where the capture fixed them.
    """

    parameters: list[str]
    annotations: list[str]
    names: list[str]
    reads: dict[torch.fx.Node, ast.expr]
    returns: str
    inputs: list[str]
    outputs: list[str]
    checks: list[ast.stmt]


def interface(
    model: Segment, captured: Captured, limits: Mapping[sympy.Symbol, str] | None = None
) -> Interface:
    """The interface of the whole model.

    Args:
        model: Its segment.
        captured: The model as it was captured.
        limits: Size of an input -> the attribute that keeps the largest that it may be.

    Raises:
        CaptureError: An output has a container that MLX code cannot return.
    """
    by_name = {item.name: item for item in captured.inputs}
    items = [by_name[str(node.target)] for node in model.inputs]
    symbols = Symbols(captured, list(zip(items, model.inputs, strict=True)))
    parameters: dict[str, str] = {}
    names: list[str] = []
    reads: dict[torch.fx.Node, ast.expr] = {}
    lines: list[str] = []
    checks: list[ast.stmt] = []
    checked: list[Checked] = []
    enforced = enforced_axes(captured)
    for item, node in zip(items, model.inputs, strict=True):
        name = next(naming.candidates([item.argument, f"{item.argument}_"]))
        names.append(name)
        kind = "mx.array"
        if item.path:
            reads[node] = _part(name, item.path)
            kind = (
                "list[mx.array]"
                if isinstance(item.path[0], int)
                else "dict[str, mx.array]"
            )
        parameters.setdefault(name, kind if len(item.path) < 2 else "Any")
        label = _label(name, item.path)
        lines.append(f"{label}: {symbols.describe(node)}")
        x = reads.get(node, syntax.name(name))
        checked.append(Checked(label, x, node, symbols.stored(node)))
        checks += check_fixed(checked[-1], enforced)
        checks += check_bounds(checked[-1], symbols.bounded(node, limits or {}))
    checks += check_conditions(checked, captured)
    structure = Structure(captured.out_spec)
    annotation = structure.annotation(model.outputs)
    outputs = [
        f"{label}: {symbols.describe(value)}" if label else symbols.describe(value)
        for label, value in zip(structure.labels(), model.outputs, strict=True)
    ]
    return Interface(
        list(parameters),
        list(parameters.values()),
        names,
        reads,
        annotation,
        lines,
        outputs,
        checks,
    )


def _part(name: str, path: tuple[Any, ...]) -> ast.expr:
    node = syntax.name(name)
    for step in path:
        node = ast.Subscript(node, ast.Constant(step))
    return node


def _label(name: str, path: tuple[Any, ...]) -> str:
    return name + "".join(f"[{step!r}]" for step in path)


def kind_of(value: Any) -> str:
    """The type of an operand, as it is annotated."""
    if isinstance(value, torch.fx.Node):
        value = value.meta.get("hint")
    if isinstance(value, Dim):
        return "int"
    if value is None:
        return "None"
    plain = isinstance(value, bool | int | float | str)
    return type(value).__name__ if plain else "mx.array"


class Structure:
    """PyTorch's output pytree as Python containers; a Hugging Face ModelOutput is a dict."""

    def __init__(self, spec: TreeSpec):
        self.spec = spec
        self._check(spec)

    def build(self, leaves: list[ast.expr]) -> ast.expr:
        """The expression of the result, from those of the leaves."""
        return self._build(self.spec, iter(leaves))

    def _build(self, spec: TreeSpec, leaves: Any) -> ast.expr:
        if spec.is_leaf():
            return next(leaves)
        items = [self._build(child, leaves) for child in spec.children()]
        keys = _keys(spec)
        if keys is not None:
            return ast.Dict([ast.Constant(key) for key in keys], items)
        return ast.List(items) if spec.type is list else ast.Tuple(items)

    def annotation(self, leaves: list[Any]) -> str:
        """The type of the result, whose leaves are these operands."""
        return self._annotation(self.spec, iter(leaves))

    def _annotation(self, spec: TreeSpec, leaves: Iterator[Any]) -> str:
        if spec.is_leaf():
            return kind_of(next(leaves))
        kinds = [self._annotation(child, leaves) for child in spec.children()]
        union = " | ".join(dict.fromkeys(kinds)) or "mx.array"
        if _keys(spec) is not None:
            return f"dict[str, {union}]"
        if spec.type is list:
            return f"list[{union}]"
        if len(kinds) > 2 and len(set(kinds)) == 1:
            return f"tuple[{union}, ...]"
        return f"tuple[{', '.join(kinds) or '()'}]"

    def labels(self) -> list[str]:
        """For each leaf, the keys that lead to it; "" where the result is the array itself."""
        return list(self._labels(self.spec, ""))

    def _labels(self, spec: TreeSpec, prefix: str) -> Any:
        if spec.is_leaf():
            yield prefix
            return
        keys = _keys(spec) or list(range(spec.num_children))
        for key, child in zip(keys, spec.children(), strict=True):
            label = (
                str(key)
                if not prefix and isinstance(key, str)
                else f"{prefix}[{key!r}]"
            )
            yield from self._labels(child, label)

    def _check(self, spec: TreeSpec) -> None:
        if spec.is_leaf():
            return
        keys = _keys(spec)
        if keys is None and spec.type not in SEQUENCES:
            raise CaptureError(
                f"an output of type {spec.type} cannot be returned by MLX code"
            )
        if keys is not None and not all(isinstance(key, str | int) for key in keys):
            raise CaptureError(f"an output dict has a key that is no string: {keys}")
        for child in spec.children():
            self._check(child)


def _keys(spec: TreeSpec) -> list[Any] | None:
    """The keys of a mapping; None for a sequence."""
    kind = spec.type
    if isinstance(kind, type) and issubclass(kind, dict):
        context = spec.context
        is_listed = isinstance(context, list | tuple)
        keys = list(context) if is_listed else []
        if (
            len(keys) == 2
            and isinstance(keys[1], list | tuple)
            and not isinstance(keys[0], str)
        ):
            keys = list(keys[1])  # defaultdict: [default factory, keys]
        return keys
    return None


class Symbols:
    """One letter for each size that may vary, the same in all inputs and outputs."""

    def __init__(self, captured: Captured, inputs: list[tuple[Input, torch.fx.Node]]):
        self.captured = captured
        self.letters: dict[sympy.Expr, str] = {}
        free = itertools.chain(LETTERS, (f"N{i}" for i in itertools.count(1)))
        self._free = free
        self._checked: set[sympy.Expr] = set()
        self.derived: dict[sympy.Expr, str] = {}
        for _, node in inputs:
            self._name(node)

    def _name(self, node: torch.fx.Node) -> None:
        tensor = node.meta["val"]
        natural = axis_names(node)
        perm = node.meta.get("perm") or range(len(tensor.shape))
        for letter, axis in zip(natural, perm, strict=True):
            expr = self.captured.expr(tensor.shape[axis])
            if not isinstance(expr, sympy.Symbol) or expr in self.letters:
                continue
            used = set(self.letters.values())
            if letter in used:
                letter = next(c for c in self._free if c not in used)
            self.letters[expr] = letter

    def describe(self, value: Any) -> str:
        """`float32 [B, H, W, 3], channels last (PyTorch: [B, 3, H, W])`."""
        if not isinstance(value, torch.fx.Node) or not isinstance(
            value.meta.get("val"), torch.Tensor
        ):
            return kind_of(value) if isinstance(value, torch.fx.Node) else str(value)
        tensor = value.meta["val"]
        sizes = self._natural(value)
        dtype = str(tensor.dtype).removeprefix("torch.")
        perm = value.meta.get("perm")
        if not perm:
            return f"{dtype} [{', '.join(sizes)}]"
        stored = ", ".join(self.stored(value))
        return f"{dtype} [{stored}], channels last (PyTorch: [{', '.join(sizes)}])"

    def bounded(
        self, node: torch.fx.Node, limits: Mapping[sympy.Symbol, str]
    ) -> list[tuple[int, str, ast.expr]]:
        """[(axis, "<=" or ">=", size)], for the first input that has each bounded size."""
        shape, found = node.meta["val"].shape, []
        for axis, natural in enumerate(node.meta.get("perm") or range(len(shape))):
            expr: Any = self.captured.expr(shape[natural])
            if expr in self._checked:
                continue
            self._checked.add(expr)
            if expr in self.captured.bounds:
                limit: ast.expr = ast.Constant(self.captured.bounds[expr])
                if expr in limits:
                    limit = syntax.name(f"self.{limits[expr]}")
                found.append((axis, "<=", limit))
            if expr in self.captured.minima:
                found.append((axis, ">=", ast.Constant(self.captured.minima[expr])))
        return found

    def stored(self, node: torch.fx.Node) -> list[str]:
        """The sizes of an array as it is stored, in letters."""
        sizes = self._natural(node)
        return [sizes[axis] for axis in node.meta.get("perm") or range(len(sizes))]

    def _natural(self, node: torch.fx.Node) -> list[str]:
        """The sizes of an array as PyTorch has them, in letters."""
        shape = node.meta["val"].shape
        letters = dict(
            zip(
                node.meta.get("perm") or range(len(shape)),
                axis_names(node),
                strict=True,
            )
        )
        return [self._size(size, letters[axis]) for axis, size in enumerate(shape)]

    def _size(self, size: Any, letter: str) -> str:
        """One size in letters; a long formula gets a letter of its own, such as H2."""
        expr = self.captured.expr(size)
        names: Any = {s: sympy.Symbol(n) for s, n in self.letters.items()}
        text = str(expr.subs(names, simultaneous=True))
        if expr.free_symbols <= self.letters.keys() and re.fullmatch(
            r"[\w +*-]{1,9}", text
        ):
            return text
        taken = {*self.letters.values(), *self.derived.values()}
        new = next(n for i in itertools.count(2) if (n := f"{letter}{i}") not in taken)
        return self.derived.setdefault(expr, new)
