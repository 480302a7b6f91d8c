"""Formulas as operators that create arrays, and arrays as formulas.

element [i, j] is j, shape [1, n]            <->   unsqueeze(arange(n), 0)
element [i, j] is whether i - j >= 0         <->   tril(ones([n, n]))
"""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.passes.affine import Affine, uniform
from torch2mlx.passes.rewrite import call
from torch2mlx.passes.sizes import shape_arguments, size_node

aten = torch.ops.aten

# Of arrays that may have a formula; others lack the operators to find out.
DTYPES = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
}


def created(
    captured: Captured,
    here: torch.fx.Node,
    formula: Affine,
    shape: Any,
    dtype: torch.dtype,
) -> torch.fx.Node | None:
    """A new node that creates the array of a formula.

    Args:
        captured: The graph that `here` is in.
        here: New calls are put before this node.
        formula: The elements.
        shape: The sizes, fixed or symbolic.
        dtype: The dtype.

    Returns:
        The node, or None where no operator creates such an array, or a size is not to be had.
    """
    moving = [axis for axis, step in enumerate(formula.steps) if step != 0]
    if not moving:
        return _full(captured, here, formula.offset, shape, dtype)
    sizes = [shape[axis] for axis in moving]
    if formula.sign:
        core = _triangle(captured, here, formula, moving, sizes, dtype)
    else:
        core = _range(captured, here, formula, moving, sizes, dtype)
    if core is None or moving != list(range(moving[0], moving[-1] + 1)):
        return None
    for axis in range(len(shape)):
        if axis < moving[0] or axis > moving[-1]:
            core = call(here, aten.unsqueeze.default, core, axis)
    return broadcast(captured, here, core, shape)


def broadcast(
    captured: Captured, here: torch.fx.Node, x: torch.fx.Node, shape: Any
) -> torch.fx.Node | None:
    """`x` expanded to a shape; itself where it has it, None where a size is not to be had."""
    own = x.meta["val"].shape
    new = len(shape) - len(own)
    sizes: list[Any] = []
    for axis, size in enumerate(shape):
        same = axis >= new and captured.expr(size) == captured.expr(own[axis - new])
        sizes.append(-1 if same else size_node(captured, here, size))
    if None in sizes:
        return None
    return (
        x
        if all(isinstance(s, int) and s == -1 for s in sizes)
        else call(here, aten.expand.default, x, sizes)
    )


def _full(
    captured: Captured,
    here: torch.fx.Node,
    number: sympy.Expr,
    shape: Any,
    dtype: torch.dtype,
) -> torch.fx.Node | None:
    sizes = shape_arguments(captured, here, shape)
    if sizes is None or not number.is_number:
        return None
    options = {} if dtype == torch.float32 else {"dtype": dtype}
    if sizes and number in (0, 1):
        target = aten.ones.default if number == 1 else aten.zeros.default
        return call(here, target, sizes, **options)
    return call(here, aten.full.default, sizes, _python(number, dtype), dtype=dtype)


def _python(number: sympy.Expr, dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return bool(number)
    return float(number) if dtype.is_floating_point else int(number)


def _range(
    captured: Captured,
    here: torch.fx.Node,
    formula: Affine,
    moving: list[int],
    sizes: list[Any],
    dtype: torch.dtype,
) -> torch.fx.Node | None:
    if len(moving) != 1:
        return None
    options = {} if dtype == torch.int64 else {"dtype": dtype}
    start, step = formula.offset, formula.steps[moving[0]]
    size = size_node(captured, here, sizes[0])
    if size is None or not start.is_Integer or not step.is_Integer:
        return None
    if (start, step) == (0, 1):
        return call(here, aten.arange.default, size, **options)
    end = size
    if step != 1:
        end = (
            end * int(step)
            if isinstance(end, int)
            else call(here, operator.mul, end, int(step))
        )
    if start != 0:
        end = (
            end + int(start)
            if isinstance(end, int)
            else call(here, operator.add, end, int(start))
        )
    if step == 1:
        return call(here, aten.arange.start, int(start), end, **options)
    return call(here, aten.arange.start_step, int(start), end, int(step), **options)


def _triangle(
    captured: Captured,
    here: torch.fx.Node,
    formula: Affine,
    moving: list[int],
    sizes: list[Any],
    dtype: torch.dtype,
) -> torch.fx.Node | None:
    steps = tuple(formula.steps[axis] for axis in moving)
    shape = shape_arguments(captured, here, sizes)
    if (
        shape is None
        or not formula.offset.is_Integer
        or steps not in ((1, -1), (-1, 1))
    ):
        return None
    options = {} if dtype == torch.float32 else {"dtype": dtype}
    ones = call(here, aten.ones.default, shape, **options)
    lower = steps == (1, -1)
    diagonal = int(formula.offset) if lower else -int(formula.offset)
    target = aten.tril.default if lower else aten.triu.default
    return call(here, target, ones, *([diagonal] if diagonal else []))


def recognised(tensor: torch.Tensor) -> Affine | None:
    """The formula of an array's elements, or None where it has none that `created` can write."""
    if tensor.dtype not in DTYPES or tensor.layout is not torch.strided:
        return None
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    first = tensor.flatten()[0]
    if bool((tensor == first).all()):
        return uniform(first.item(), tensor.ndim)
    return _recognised_range(tensor) or _recognised_triangle(tensor)


def _recognised_range(tensor: torch.Tensor) -> Affine | None:
    moving = [axis for axis, size in enumerate(tensor.shape) if size > 1]
    if len(moving) != 1 or tensor.dtype == torch.bool:
        return None
    values = tensor.flatten().to(torch.float64)
    # As far as float64 tells all integers apart; nan is not less than anything.
    if not bool((values.abs() < 2**53).all()):
        return None
    start, step = float(values[0]), float(values[1] - values[0])
    if not (start.is_integer() and step.is_integer()):
        return None
    if len(values) < 4 and (start, step) != (0, 1):
        return None
    steps = step * torch.arange(len(values), dtype=torch.float64) + start
    if not torch.equal(steps, values):
        return None
    return Affine(
        sympy.Integer(int(start)),
        tuple(
            sympy.Integer(int(step) if a == moving[0] else 0)
            for a in range(tensor.ndim)
        ),
    )


def _recognised_triangle(tensor: torch.Tensor) -> Affine | None:
    if tensor.ndim < 2 or tensor.numel() != tensor.shape[-1] * tensor.shape[-2]:
        return None
    matrix = tensor.reshape(tensor.shape[-2:])
    ones = torch.ones_like(matrix)
    rows, columns = matrix.shape
    in_row, in_column = int((matrix[0] == 1).sum()), int((matrix[:, 0] == 1).sum())
    lower = in_row - 1 if in_row else in_column - rows
    upper = columns - in_row if in_row < columns else 1 - in_column
    other = (sympy.S.Zero,) * (tensor.ndim - 2)
    if torch.equal(torch.tril(ones, lower), matrix):
        return Affine(
            sympy.Integer(lower), (*other, sympy.S.One, sympy.S.NegativeOne), True
        )
    if torch.equal(torch.triu(ones, upper), matrix):
        return Affine(
            sympy.Integer(-upper), (*other, sympy.S.NegativeOne, sympy.S.One), True
        )
    return None
