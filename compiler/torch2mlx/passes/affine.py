"""Which integer and boolean arrays are a formula of their indices.

    arange(n)[:, None]                   element [i, j] is i
    arange(n)[None, :] <= arange(n)      element [j] is whether 0 >= 0
    ones(2, n, dtype=bool)               element [i, j] is 1

This is how the attention masks that models compute are seen through, whatever operators they use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.rewrite import arguments, tensor_of
from torch2mlx.passes.sizes import expression, is_nonnegative
from torch2mlx.passes.views import EXPANSIONS, PERMUTES, RESHAPES, axis_order

aten = torch.ops.aten

DTYPES = {torch.int64, torch.int32, torch.bool}


@dataclass(frozen=True)
class Affine:
    """Element [i, j, ...] is `offset + i * steps[0] + j * steps[1] + ...`.

    Attributes:
        offset: The first element.
        steps: How much the elements grow along each axis; 0 along axes of size 1.
        sign: Elements are not that number, but whether it is at least 0.
    """

    offset: sympy.Expr
    steps: tuple[sympy.Expr, ...]
    sign: bool = False

    @property
    def constant(self) -> sympy.Expr | None:
        """The number that all elements are, or None where they differ."""
        return None if self.sign or any(self.steps) else self.offset


def uniform(number: Any, ndim: int) -> Affine:
    """An array of `ndim` axes whose elements are all the same."""
    return Affine(
        sympy.sympify(int(number) if isinstance(number, bool) else number),
        (sympy.S.Zero,) * ndim,
    )


class Formulas:
    """What is known about the nodes of a graph.

    Args:
        captured: The graph.
        constant: Placeholder -> its formula, for weights whose values may be relied on.
    """

    def __init__(
        self,
        captured: Captured,
        constant: Callable[[torch.fx.Node], Affine | None] = lambda node: None,
    ):
        self.captured = captured
        self._constant = constant
        self._known: dict[torch.fx.Node, Affine | None] = {}

    def of(self, node: Any) -> Affine | None:
        """The formula of a node's elements, or None."""
        value = tensor_of(node)
        if value is None or value.dtype not in DTYPES:
            return None
        if node not in self._known:
            found = self._find(node)
            self._known[node] = None if found is None else self._normal(found, value)
        return self._known[node]

    def constant(self, node: Any) -> sympy.Expr | None:
        """The number that all elements of a node are, or None."""
        found = self.of(node)
        return None if found is None else found.constant

    def bounds(self, found: Affine, shape: Any) -> tuple[sympy.Expr, sympy.Expr] | None:
        """The smallest and the largest number of a formula, over an array that is not empty."""
        low = high = found.offset
        for step, size in zip(found.steps, shape, strict=True):
            last = step * (self.captured.expr(size) - 1)
            if is_nonnegative(step):
                high += last
            elif is_nonnegative(-step):
                low += last
            else:
                return None
        return low, high

    def _find(self, node: torch.fx.Node) -> Affine | None:
        if node.op == "placeholder":
            return self._constant(node)
        rule = RULES.get(node.target)
        return None if rule is None else rule(self, node)

    def _normal(self, found: Affine, value: torch.Tensor) -> Affine:
        """Steps along axes of one element are 0; a sign that is always the same is a number."""
        sizes = [self.captured.expr(size) for size in value.shape]
        steps = tuple(
            sympy.S.Zero if size == 1 else step
            for step, size in zip(found.steps, sizes, strict=True)
        )
        found = dataclasses.replace(
            found, offset=sympy.expand(found.offset), steps=steps
        )
        if not found.sign:
            return found
        bounds = self.bounds(found, value.shape)
        if bounds is not None and is_nonnegative(bounds[0]):
            return uniform(1, value.ndim)
        if bounds is not None and is_nonnegative(-1 - bounds[1]):
            return uniform(0, value.ndim)
        return found

    def number(self, argument: Any, ndim: int) -> Affine | None:
        """An operand, a node or a Python number, with its steps for `ndim` axes."""
        if isinstance(argument, int):
            return uniform(argument, ndim)
        if not isinstance(argument, torch.fx.Node):
            return None
        if isinstance(argument.meta.get("val"), torch.SymInt):
            return uniform(expression(self.captured, argument), ndim)
        found = self.of(argument)
        if found is None or found.sign:
            return None
        missing = ndim - len(found.steps)
        return Affine(found.offset, (sympy.S.Zero,) * missing + found.steps)


Rule = Callable[[Formulas, torch.fx.Node], Affine | None]


def _arange(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    given = arguments(node)
    bounds = [given.get("start", 0), given.get("step", 1)]
    exprs = [
        expression(formulas.captured, b) for b in bounds if not isinstance(b, float)
    ]
    return Affine(exprs[0], (exprs[1],)) if len(exprs) == 2 else None


def _filled(number: int | None) -> Rule:
    """`zeros`, `ones`, or with None `full`, in all their forms."""

    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        given = arguments(node)
        fill = given.get("fill_value", given.get("s")) if number is None else number
        ndim = node.meta["val"].ndim
        return formulas.number(fill, ndim)

    return rule


def _expanded(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    found = formulas.of(node.args[0])
    if found is None:
        return None
    missing = node.meta["val"].ndim - len(found.steps)
    return dataclasses.replace(found, steps=(sympy.S.Zero,) * missing + found.steps)


def _repeated(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """`repeat` along axes where the elements do not change."""
    repeats = node.args[1]
    assert isinstance(repeats, list | tuple)
    found = _expanded(formulas, node)
    if found is None or any(
        step != 0 and count != 1
        for step, count in zip(found.steps, repeats, strict=True)
    ):
        return None
    return found


def _reshaped(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """Axes of size 1 come and go; the others keep their steps."""
    found, x, own = formulas.of(node.args[0]), tensor_of(node.args[0]), node.meta["val"]
    if found is None or x is None:
        return None
    if not any(found.steps):
        return dataclasses.replace(found, steps=(sympy.S.Zero,) * own.ndim)
    expr = formulas.captured.expr
    sizes = [expr(size) for size in own.shape]
    kept = [
        (expr(size), step)
        for size, step in zip(x.shape, found.steps, strict=True)
        if expr(size) != 1
    ]
    if [size for size, _ in kept] != [size for size in sizes if size != 1]:
        return None
    rest = iter(kept)
    steps = tuple(next(rest)[1] if size != 1 else sympy.S.Zero for size in sizes)
    return dataclasses.replace(found, steps=steps)


def _permuted(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    found = formulas.of(node.args[0])
    if found is None:
        return None
    return dataclasses.replace(
        found, steps=tuple(found.steps[i] for i in axis_order(node))
    )


def _sliced(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    given, found = arguments(node), formulas.of(node.args[0])
    if found is None:
        return None
    start = expression(formulas.captured, given["start"] or 0)
    step = expression(formulas.captured, given["step"])
    if not is_nonnegative(start):
        return None
    steps = list(found.steps)
    offset = found.offset + start * steps[given["dim"]]
    steps[given["dim"]] *= step
    return dataclasses.replace(found, offset=offset, steps=tuple(steps))


def _selected(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    given, found = arguments(node), formulas.of(node.args[0])
    if found is None:
        return None
    index = expression(formulas.captured, given["index"])
    if not is_nonnegative(index):
        return None
    steps = list(found.steps)
    offset = found.offset + index * steps.pop(given["dim"])
    return dataclasses.replace(found, offset=offset, steps=tuple(steps))


def _converted(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    found, own = formulas.of(node.args[0]), node.meta["val"]
    if found is None or own.dtype != torch.bool or tensor_of(node.args[0]).dtype == torch.bool:  # type: ignore[union-attr]
        return found
    if found.constant is None or not found.constant.is_Integer:
        return None
    return uniform(found.constant != 0, own.ndim)


def _arithmetic(operation: Callable[[Any, Any], Any]) -> Rule:
    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        own = node.meta["val"]
        if own.dtype == torch.bool or arguments(node).get("alpha", 1) != 1:
            return None
        left, right = (formulas.number(x, own.ndim) for x in node.args[:2])
        if left is None or right is None:
            return None
        return _combined(operation, left, right)

    return rule


def _combined(
    operation: Callable[[Any, Any], Any], left: Affine, right: Affine
) -> Affine | None:
    if operation is torch.mul:
        if any(left.steps):
            left, right = right, left
        if any(left.steps):
            return None
        factor = left.offset
        return Affine(factor * right.offset, tuple(factor * s for s in right.steps))
    sign = 1 if operation is torch.add else -1
    steps = tuple(a + sign * b for a, b in zip(left.steps, right.steps, strict=True))
    return Affine(left.offset + sign * right.offset, steps)


def _comparison(swap: bool, strict: bool) -> Rule:
    """a >= b, or with `swap` a <= b, or without equality."""

    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        ndim = node.meta["val"].ndim
        left, right = (formulas.number(x, ndim) for x in node.args[:2])
        if left is None or right is None:
            return None
        if swap:
            left, right = right, left
        found = _combined(torch.sub, left, right)
        assert found is not None
        return Affine(found.offset - int(strict), found.steps, sign=True)

    return rule


def _equality(equal: bool) -> Rule:
    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        value = node.meta["val"]
        left, right = (formulas.number(x, value.ndim) for x in node.args[:2])
        if left is None or right is None:
            return None
        found = _combined(torch.sub, left, right)
        assert found is not None
        if found.constant == 0:
            return uniform(equal, value.ndim)
        bounds = formulas.bounds(found, value.shape)
        if bounds and (is_nonnegative(bounds[0] - 1) or is_nonnegative(-1 - bounds[1])):
            return uniform(not equal, value.ndim)
        return None

    return rule


def _logic(absorbing: int) -> Rule:
    """`and` (absorbed by 0) and `or` (absorbed by 1) of booleans."""

    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        value = node.meta["val"]
        if value.dtype != torch.bool:
            return None
        found = [formulas.constant(x) for x in node.args[:2]]
        if absorbing in found:
            return uniform(absorbing, value.ndim)
        if None in found:
            return None
        return uniform(1 - absorbing, value.ndim)

    return rule


def _negated(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """`not x`: whether -x - 1 is at least 0."""
    found, own = formulas.of(node.args[0]), node.meta["val"]
    if found is None or own.dtype != torch.bool or tensor_of(node.args[0]).dtype != torch.bool:  # type: ignore[union-attr]
        return None
    if found.sign:
        return Affine(-found.offset - 1, tuple(-s for s in found.steps), sign=True)
    return None if found.constant is None else uniform(1 - found.constant, own.ndim)


def _triangle(lower: bool) -> Rule:
    """`tril` or `triu` of ones."""

    def rule(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
        if formulas.constant(node.args[0]) != 1:
            return None
        diagonal = sympy.sympify(arguments(node)["diagonal"])
        other = (sympy.S.Zero,) * (node.meta["val"].ndim - 2)
        if lower:
            return Affine(
                diagonal, (*other, sympy.S.One, sympy.S.NegativeOne), sign=True
            )
        return Affine(-diagonal, (*other, sympy.S.NegativeOne, sympy.S.One), sign=True)

    return rule


def _gathered(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """Any choice among equal elements."""
    found = formulas.constant(node.args[0])
    return None if found is None else uniform(found, node.meta["val"].ndim)


def _summed(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """`cumsum` of equal elements."""
    number, own = formulas.constant(node.args[0]), node.meta["val"]
    if number is None or own.ndim == 0:
        return None
    steps = [sympy.S.Zero] * own.ndim
    steps[arguments(node)["dim"]] = number
    return Affine(number, tuple(steps))


def _differences(formulas: Formulas, node: torch.fx.Node) -> Affine | None:
    """`diff`: the step along the axis, where what is put before is one step before."""
    given = arguments(node)
    found, own = formulas.of(given["self"]), node.meta["val"]
    if found is None or found.sign or given["n"] != 1 or given["append"] is not None:
        return None
    step = found.steps[given["dim"]]
    if given["prepend"] is not None:
        before = formulas.of(given["prepend"])
        steps = list(found.steps)
        steps[given["dim"]] = sympy.S.Zero
        if before != Affine(sympy.expand(found.offset - step), tuple(steps)):
            return None
        if formulas.captured.expr(tensor_of(given["prepend"]).shape[given["dim"]]) != 1:  # type: ignore[union-attr]
            return None
    return uniform(step, own.ndim)


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        [aten.arange.default, aten.arange.start, aten.arange.start_step], _arange
    ),
    **dict.fromkeys(
        [aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default],
        _filled(0),
    ),
    **dict.fromkeys(
        [aten.ones.default, aten.ones_like.default, aten.new_ones.default], _filled(1)
    ),
    **dict.fromkeys(
        [
            aten.full.default,
            aten.full_like.default,
            aten.new_full.default,
            aten.scalar_tensor.default,
        ],
        _filled(None),
    ),
    **dict.fromkeys(EXPANSIONS, _expanded),
    aten.repeat.default: _repeated,
    **dict.fromkeys(RESHAPES, _reshaped),
    **dict.fromkeys(PERMUTES, _permuted),
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
    aten.to.dtype: _converted,
    **dict.fromkeys([aten.add.Tensor, aten.add.Scalar], _arithmetic(torch.add)),
    **dict.fromkeys([aten.sub.Tensor, aten.sub.Scalar], _arithmetic(torch.sub)),
    **dict.fromkeys([aten.mul.Tensor, aten.mul.Scalar], _arithmetic(torch.mul)),
    **dict.fromkeys(
        [aten.ge.Tensor, aten.ge.Scalar], _comparison(swap=False, strict=False)
    ),
    **dict.fromkeys(
        [aten.gt.Tensor, aten.gt.Scalar], _comparison(swap=False, strict=True)
    ),
    **dict.fromkeys(
        [aten.le.Tensor, aten.le.Scalar], _comparison(swap=True, strict=False)
    ),
    **dict.fromkeys(
        [aten.lt.Tensor, aten.lt.Scalar], _comparison(swap=True, strict=True)
    ),
    **dict.fromkeys([aten.eq.Tensor, aten.eq.Scalar], _equality(True)),
    **dict.fromkeys([aten.ne.Tensor, aten.ne.Scalar], _equality(False)),
    **dict.fromkeys(
        [aten.bitwise_and.Tensor, aten.__and__.Tensor, aten.logical_and.default],
        _logic(0),
    ),
    **dict.fromkeys(
        [aten.bitwise_or.Tensor, aten.__or__.Tensor, aten.logical_or.default], _logic(1)
    ),
    **dict.fromkeys([aten.bitwise_not.default, aten.logical_not.default], _negated),
    aten.tril.default: _triangle(lower=True),
    aten.triu.default: _triangle(lower=False),
    aten.cumsum.default: _summed,
    aten.diff.default: _differences,
    **dict.fromkeys(
        [aten.gather.default, aten.index.Tensor, aten.index_select.default], _gathered
    ),
}
